//! `--env NAME=OTHER`.

use crate::{
    fake::Script,
    run::{fails, injector, succeeds, text},
};

fn printed(script: Script, inherited: &[(&str, &str)], options: &[&str]) -> String {
    let server = script.start();
    let mut command = injector(&server);
    command.envs(inherited.iter().copied()).args(options).args(["--", "sh", "-c", "env | grep -v ^PATH= | sort"]);
    text(&succeeds(&mut command))
}

fn script() -> Script {
    Script::of(&[("A", "1"), ("B", "2")])
}

#[test]
fn a_secret_has_its_other_name_and_not_its_own() {
    let without_pwd = |text: String| text.lines().filter(|l| !l.starts_with("PWD=")).collect::<Vec<_>>().join(" ");
    let env = |inherited: &[(&str, &str)], options: &[&str]| without_pwd(printed(script(), inherited, options));
    assert_eq!(env(&[], &["--env", "A=aws_secret"]), "B=2 aws_secret=1");
    assert_eq!(env(&[], &["--env", "A=B", "--env", "B=A"]), "A=2 B=1");
    assert_eq!(env(&[], &["--only", "A", "--env", "A=B"]), "B=1", "what --only leaves out has no name");
    assert_eq!(env(&[("A", "mine")], &["--env", "A=x"]), "A=mine B=2 x=1");
    assert_eq!(env(&[("x", "mine")], &["--env", "A=x", "--keep-existing"]), "B=2 x=mine");
    assert_eq!(env(&[("x", "mine")], &["--env", "A=x"]), "B=2 x=1");
}

#[test]
fn what_cannot_be_is_refused() {
    let lines = |options: &[&str], code| {
        let server = script().start();
        fails(injector(&server).args(options).args(["--", "true"]), code)
    };
    assert!(lines(&["--env", "NONE=x"], 78)[0].contains("NONE: "));
    assert!(lines(&["--env", "A=B"], 65)[0].contains("B is the name of another secret"));
    assert!(lines(&["--env", "A=LD_PRELOAD"], 64)[0].contains("reserved"));
    assert!(lines(&["--env", "A=x", "--env", "B=x"], 64)[0].contains("the one variable x"));
    assert!(lines(&["--dry-run", "--env", "A=B"], 65)[0].contains("B is the name of another secret"));
}

#[test]
fn a_dry_run_tells_where_each_goes() {
    let server = script().start();
    let table = text(&succeeds(injector(&server).args(["--dry-run", "--env", "A=a", "--files", "/no/such/dir"])));
    let expected = "NAME  KIND       VERSION  DELIVERED AS       SOURCE\n\
                    A     encrypted        7  a, /no/such/dir/A  projects/p/secrets/A\n\
                    B     encrypted        7  /no/such/dir/B     projects/p/secrets/B\n";
    assert_eq!(table, expected);
}

#[test]
fn the_size_is_that_of_what_is_delivered() {
    // One variable of 60 KiB fits a small stack, three do not, and as a file it needs nothing.
    let value = "x".repeat(60 * 1024);
    let in_memory = tempfile::tempdir_in("/dev/shm").expect("a directory");
    let directory = in_memory.path().join("d");
    let run = |options: &[&str]| {
        let server = Script::of(&[("A", &value)]).start();
        let injector = injector(&server);
        let mut command = crate::run::bare("/bin/sh");
        command.envs(injector.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.args(["-c", "ulimit -s 400 && exec \"$@\"", "sh"]).arg(injector.get_program()).args(options);
        crate::run::run(command.args(["--", "true"])).status.code()
    };
    assert_eq!(run(&[]), Some(0));
    assert_eq!(run(&["--env", "A=x", "--env", "A=y", "--env", "A=z"]), Some(65));
    assert_eq!(run(&["--files", directory.to_str().expect("text")]), Some(0));
}
