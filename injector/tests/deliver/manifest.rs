//! What manifests require.

use crate::{
    fake::Script,
    run::{fails, injector, run, text},
};

fn script() -> Script {
    Script { missing_required: vec!["X".into(), "Y".into()], ..Script::of(&[("A", "hunter2")]) }
}

#[test]
fn what_a_manifest_requires_must_be_there() {
    let server = script().start();
    for options in [&["--", "true"][..], &["--only", "A", "--", "true"], &["--dry-run"]] {
        let lines = fails(injector(&server).args(options), 78);
        assert_eq!(lines.len(), 2, "{lines:?}");
        for (line, name) in lines.iter().zip(["X", "Y"]) {
            assert!(line.starts_with(&format!("coffer-inject: {name}: required by a manifest, but")), "{line}");
        }
    }
}

#[test]
fn it_can_be_ignored_with_a_warning() {
    let server = script().start();
    for options in [&["--", "sh", "-c", "echo $A"][..], &["--dry-run"]] {
        let output = run(injector(&server).arg("--ignore-manifest").args(options));
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{stderr}");
        assert!(
            stderr.lines().count() == 2 && stderr.starts_with("coffer-inject: warning: X: required by"),
            "{stderr}"
        );
    }
}
