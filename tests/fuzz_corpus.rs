//! Every kept input of every fuzz target, and random ones: no parser panics on any bytes.

#[path = "fuzz/src/lib.rs"]
mod targets;

use std::{fs, path::Path};

use proptest::{
    strategy::{Strategy as _, ValueTree as _},
    test_runner::TestRunner,
};

#[test]
fn every_kept_input_is_handled() {
    for (name, target) in targets::TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let inputs: Vec<_> = fs::read_dir(&folder).expect(name).map(|entry| entry.expect(name).path()).collect();
        assert!(!inputs.is_empty(), "{name} has no kept inputs");
        for path in inputs {
            target(&fs::read(path).expect(name));
        }
    }
}

#[test]
fn random_changes_of_kept_inputs_are_handled() {
    let mut runner = TestRunner::deterministic();
    for (name, target) in targets::TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        for entry in fs::read_dir(&folder).expect(name) {
            let kept = fs::read(entry.expect(name).path()).expect(name);
            let change = (0..kept.len().max(1), proptest::num::u8::ANY, proptest::num::u8::ANY);
            for _ in 0..200 {
                let (at, byte, cut) = change.new_tree(&mut runner).expect("a change").current();
                let mut input = kept.clone();
                match cut % 3 {
                    0 => input.insert(at.min(kept.len()), byte),
                    1 if at < input.len() => input[at] = byte,
                    _ => input.truncate(at),
                }
                target(&input);
            }
        }
    }
}
