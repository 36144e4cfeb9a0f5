//! `--files` and `--template`.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use crate::{
    fake::Script,
    run::{fails, injector, run, succeeds, text},
};

/// A directory in memory: nothing is said about it.
fn in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").expect("a directory in memory")
}

fn words(option: &str, path: &Path) -> [String; 2] {
    [option.to_owned(), path.to_str().expect("text").to_owned()]
}

fn template(root: &Path, content: &str) -> ([String; 2], PathBuf) {
    let (template, out) = (root.join("in"), root.join("out"));
    fs::write(&template, content).expect("written");
    (["--template".to_owned(), format!("{}:{}", template.display(), out.display())], out)
}

#[test]
fn secrets_are_files_and_no_variables() {
    let root = in_memory();
    let directory = root.path().join("secrets");
    let script = "stat -c '%a %n' . A B; cat A; env | grep -c -e hunter -e second; true";
    let run = |variables: &[(&str, &str)], options: &[&str], script: &str| {
        let server = Script::of(variables).start();
        let mut command = injector(&server);
        command.args(words("--files", &directory)).args(options).args(["--", "sh", "-c"]);
        text(&succeeds(command.arg(format!("cd {} && {script}", directory.display()))))
    };
    let expected = "700 .\n400 A\n400 B\nhunter2\n0\n";
    assert_eq!(run(&[("A", "hunter2\n"), ("B", "second")], &[], script), expected);
    // At the next start: changed, gone, and one by its other name too.
    let again = run(&[("A", "hunter3"), ("C", "third")], &["--env", "C=see"], "cat A C; ls; echo $see$A$C");
    assert_eq!(again, "hunter3thirdA\nC\nthird\n");
    let only = run(&[("A", "hunter3"), ("C", "third")], &["--only", "C"], "ls");
    assert_eq!(only, "C\n");
}

#[test]
fn a_template_is_rendered_and_variables_are_set() {
    let root = in_memory();
    let (option, out) = template(root.path(), "user={{ USER_NAME }}\npass={{PASS}} {{{{PASS}}\n");
    let server = Script::of(&[("USER_NAME", "me"), ("PASS", "{{USER_NAME}}")]).start();
    let printed = succeeds(injector(&server).args(option).args(["--", "sh", "-c", "cat \"$0\"; echo $PASS"]).arg(&out));
    assert_eq!(text(&printed), "user=me\npass={{USER_NAME}} {{PASS}}\n{{USER_NAME}}\n");
    assert_eq!(fs::metadata(&out).expect("there").permissions().mode() & 0o7777, 0o400);
}

#[test]
fn nothing_is_written_when_anything_is_refused() {
    let root = in_memory();
    let directory = root.path().join("secrets");
    let trace = root.path().join("trace");
    let (option, out) = template(root.path(), "{{A}} {{NONE}} {{OTHER}}");
    let server = Script::of(&[("A", "hunter2")]).start();
    let mut command = injector(&server);
    command.args(&option).args(words("--files", &directory)).args(["--", "touch"]).arg(&trace);
    let lines = fails(&mut command, 78);
    assert!(lines.len() == 2 && lines[0].contains("NONE: ") && lines[1].contains("OTHER: "), "{lines:?}");
    assert_eq!(fails(injector(&server).args(&option).arg("--dry-run"), 78).len(), 2);

    fs::write(root.path().join("in"), "{{A}}").expect("written");
    fs::create_dir(&out).expect("made");
    let lines = fails(&mut command, 65);
    assert!(lines[0].contains("out: is a directory"), "{lines:?}");
    assert!(fs::read_dir(&directory).map_or(0, Iterator::count) == 0 && !trace.exists());
    fails(injector(&server).args(&option).arg("--dry-run"), 65);
}

#[test]
fn a_place_that_is_not_ours_is_refused() {
    let root = in_memory();
    let real = root.path().join("real");
    fs::create_dir(&real).expect("made");
    let link = root.path().join("link");
    std::os::unix::fs::symlink(&real, &link).expect("linked");
    let server = Script::of(&[("A", "hunter2")]).start();
    let refused = |path: &Path| fails(injector(&server).args(words("--files", path)).args(["--", "true"]), 65).concat();
    assert!(refused(&link).contains("symbolic link"));
    fs::set_permissions(&real, fs::Permissions::from_mode(0o777)).expect("set");
    assert!(refused(&real).contains("chmod go-w"));
    fs::set_permissions(&real, fs::Permissions::from_mode(0o700)).expect("set");
    fs::write(real.join("A"), "theirs").expect("written");
    assert!(refused(&real).contains("coffer-inject did not make it"));
    assert_eq!(fs::read_to_string(real.join("A")).expect("text"), "theirs");
}

#[test]
fn a_disk_is_told() {
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let statfs = rustix::fs::statfs(root.path()).expect("told");
    let server = Script::of(&[("A", "hunter2")]).start();
    let output = run(injector(&server).args(words("--files", &root.path().join("d"))).args(["--", "true"]));
    let in_memory = [0x0102_1994, 0x8584_58f6].contains(&i128::from(statfs.f_type));
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stderr).contains("not in memory"), !in_memory, "{}", text(&output.stderr));
}
