//! `--mask`.

use crate::{
    fake::Script,
    run::{injector, run, text},
};

const VALUE: &str = "hunter2-hunter2";

#[test]
fn what_the_command_prints_has_no_encrypted_value() {
    let server = Script::of(&[("A", VALUE), ("SHORT", "1")]).start();
    let script = "echo out $A $SHORT; echo err $A >&2; printf %s $A | base64; exit 7";
    let output = run(injector(&server).args(["--mask", "--", "sh", "-c", script]));
    assert_eq!(text(&output.stdout), "out {{A}} 1\n{{A}}\n");
    assert_eq!(text(&output.stderr), "err {{A}}\n");
    assert_eq!(output.status.code(), Some(7), "its exit code is the command's");
}

#[test]
fn all_of_a_long_output_arrives() {
    let server = Script::of(&[("A", VALUE)]).start();
    let script = "i=0; while [ $i -lt 5000 ]; do echo $i $A; i=$((i+1)); done";
    let output = run(injector(&server).args(["--mask", "--", "sh", "-c", script]));
    let expected: String = (0..5000).map(|number| format!("{number} {{{{A}}}}\n")).collect();
    assert!(output.status.success() && text(&output.stdout) == expected);
}

#[test]
fn a_reader_that_leaves_ends_the_command() {
    let server = Script::of(&[("A", VALUE)]).start();
    let mut command = crate::run::bare("/bin/sh");
    let injector = injector(&server);
    command.envs(injector.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.args(["-c", "\"$0\" --mask -- yes \"$1\" | head -n 1"]).arg(injector.get_program()).arg(VALUE);
    let output = run(&mut command);
    assert_eq!(text(&output.stdout), "{{A}}\n");
}
