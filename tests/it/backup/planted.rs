//! What another user of the machine may put in the way of a backup.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use serde_json::json;

use super::place::Place;

fn mode(path: &Path) -> u32 {
    path.symlink_metadata().unwrap().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_made_in_a_directory_of_its_own_whatever_was_planted_beside_its_place() {
    let place = Place::plain().await;
    // As /tmp is: everybody may make files there.
    let shared = place.world.directory.path().join("shared");
    std::fs::create_dir(&shared).unwrap();
    set_mode(&shared, 0o1777);
    let victim = place.world.directory.path().join("victim");
    std::fs::create_dir(&victim).unwrap();
    std::fs::write(victim.join("precious"), "kept").unwrap();
    for planted in [".backup.partial", ".backup.x.partial", ".backup.x.removed"] {
        symlink(&victim, shared.join(planted)).unwrap();
    }
    let open = shared.join(".backup.open.partial");
    std::fs::create_dir(&open).unwrap();
    set_mode(&open, 0o777);
    std::fs::write(open.join("dump"), "another's").unwrap();

    let backup = shared.join("backup");
    place.run("db-backup", &["--output", backup.to_str().unwrap()]).await.well();
    assert_eq!(mode(&backup), 0o700, "others must not read rows");
    assert!(backup.symlink_metadata().unwrap().is_dir());
    assert_eq!(std::fs::read_to_string(victim.join("precious")).unwrap(), "kept");
    assert_eq!(std::fs::read_dir(&victim).unwrap().count(), 1, "nothing was written there");
    assert!(open.join("dump").exists(), "what may be another's is let alone");
    place.run("db-verify", &["--input", backup.to_str().unwrap()]).await.well();

    // Who may rename the directory could put another in its place.
    set_mode(&shared, 0o777);
    let other = shared.join("other");
    let refused = place.run("db-backup", &["--output", other.to_str().unwrap()]).await;
    refused.refused(2, "everybody may rename files in");
    assert!(!other.exists());

    // What is read is a file of the backup, not what a link leads to.
    set_mode(&shared, 0o1777);
    std::fs::rename(backup.join("dump"), victim.join("dump")).unwrap();
    symlink(victim.join("dump"), backup.join("dump")).unwrap();
    place.run("db-verify", &["--input", backup.to_str().unwrap()]).await.refused(1, "dump");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_another_user_planted_as_the_newest_makes_no_true_one_go() {
    // Only root can make a file another user's.
    if !nix::unistd::Uid::effective().is_root() {
        return;
    }
    let place = Place::plain().await;
    let directory = place.path("backups");
    let path = Path::new(&directory);
    std::fs::create_dir(path).unwrap();
    let name = place.world.own_url.rsplit('/').next().unwrap().to_owned();
    for (year, owner) in [("2021", 0), ("9998", 65_534), ("9999", 65_534)] {
        let made = path.join(format!("{name}-{year}0101T000000Z"));
        std::fs::create_dir(&made).unwrap();
        let manifest =
            json!({"format": 1, "created": format!("{year}-01-01T00:00:00Z"), "database": {"name": name}});
        std::fs::write(made.join("manifest.json"), manifest.to_string()).unwrap();
        std::os::unix::fs::chown(&made, Some(owner), None).unwrap();
    }
    let said = place.run("db-backup", &["--directory", &directory, "--keep", "2"]).await.well();
    assert!(said.contains("belongs to another user") && !said.contains("removed"), "{said}");
    assert_eq!(std::fs::read_dir(path).unwrap().count(), 4);
}
