//! A file system that fills up and gets room again, without a restart.

use std::{fs, path::PathBuf};

use coffer_proto::v1::store_status::Writes;
use rustix::fs::{FallocateFlags, fallocate, statvfs};

use super::stage::{Outcome, Stage};
use crate::harness::{Namespace, unshared, until_async};

const MIB: u64 = 1 << 20;
/// Reads on a full disk: their audit lines are far more than what fits behind the end of a file by chance.
const READS: u64 = 500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fills_up_keeps_reading_and_deleting_and_goes_on_with_room() {
    let mut stage = Stage::set().await;
    let script = "mkdir \"$0\" && mount -t tmpfs -o size=96m,mode=700 none \"$0\" && cp -a \"$1/.\" \"$0\" \
        && mount --bind \"$0\" \"$1\" && shift && exec \"$@\"";
    let run = stage.server.run_command();
    let data = stage.server.data();
    let mut command = unshared(&[Namespace::Mount]);
    command.args(["sh", "-euc", script]).arg(stage.server.home().join("small")).arg(&data);
    // The audit log shares the small disk, as it does by default.
    let audit_file = stage.server.home().join("audit.log");
    let args =
        run.get_args().map(|arg| if arg == audit_file { data.join("audit.jsonl").into() } else { arg.to_owned() });
    command.arg(run.get_program()).args(args);
    stage.server.run_by(command);
    // The server's own view of its files: nobody else sees the small file system.
    let inside = PathBuf::from(format!("/proc/{}/root{}", stage.server.pid(), data.display()));
    let ballast = inside.join("ballast");
    let leave = |bytes: u64| {
        drop(fs::remove_file(&ballast));
        let stat = statvfs(&inside).expect("known");
        let file = fs::File::create(&ballast).expect("made");
        let fill = (stat.f_bavail * stat.f_frsize).saturating_sub(bytes);
        fallocate(&file, FallocateFlags::empty(), 0, fill).expect("there is room for it");
    };
    for _ in 0..3 {
        assert!(matches!(stage.create().await, Outcome::Acknowledged));
    }

    // Below the reserve only deletes pass.
    leave(12 * MIB);
    let create = stage.create().await;
    assert!(matches!(&create, Outcome::Refused(why) if why == "STORAGE_FULL"), "{create:?}");
    assert!(matches!(stage.delete().await, Outcome::Acknowledged));
    let (writes, reason, _) = stage.says().await;
    assert_eq!(writes, Writes::Deletes, "{reason}");
    stage.reads_go_on().await;

    // Full: nothing is written any more.
    leave(0);
    for outcome in [stage.create().await, stage.delete().await] {
        assert!(matches!(&outcome, Outcome::Refused(why) if why == "STORAGE_FULL"), "{outcome:?}");
    }
    let (writes, reason, _) = stage.says().await;
    assert_eq!(writes, Writes::None, "{reason}");
    let lines = || fs::metadata(inside.join("audit.jsonl")).expect("there").len();
    let before = lines();
    for _ in 0..READS {
        stage.reads_go_on().await;
    }
    assert!(lines() > before + READS * 200, "each is in the audit log");

    // There is room again: all goes on, without a restart.
    fs::remove_file(&ballast).expect("it was there");
    until_async("writes to go on", async || matches!(stage.create().await, Outcome::Acknowledged).then_some(())).await;
    assert!(matches!(stage.delete().await, Outcome::Acknowledged));
    let (writes, reason, healthy) = stage.says().await;
    assert!(writes == Writes::All && healthy, "{reason}");
    stage.reads_go_on().await;
}
