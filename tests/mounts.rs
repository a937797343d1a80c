//! What is mounted for the user, and what is not.

use std::ffi::CString;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::sys::stat::Mode;

use crate::support::{Case, Finish, program, text};

fn volume(case: &Case, name: &str, rest: &str) -> String {
    format!("{}{rest}", text(&case.path(name)))
}

#[test]
fn directories_and_files_are_bound() {
    let case = Case::new();
    case.file("data/a/b", "b\n");
    let (dir, file) = (volume(&case, "data", ":/deep/in/data"), volume(&case, "data/a/b", ":/etc/file"));
    let script = "cat /deep/in/data/a/b /etc/file && echo new >/deep/in/data/c && echo more >>/etc/file";
    assert_eq!(case.sh(&["-v", &dir, "-v", &file], script).ok(), "b\nb\n");
    assert_eq!(std::fs::read_to_string(case.path("data/c")).unwrap(), "new\n");
    assert_eq!(std::fs::read_to_string(case.path("data/a/b")).unwrap(), "b\nmore\n");
}

#[test]
fn a_comma_list_is_several() {
    let case = Case::new();
    case.file("a/f", "a\n");
    case.file("b/f", "b\n");
    let list = format!("{},{}", volume(&case, "a", ":/a:ro,z"), volume(&case, "b", ":/b"));
    let script = "cat /a/f /b/f; touch /a/x 2>/dev/null || echo ro; touch /b/x && echo rw";
    assert_eq!(case.sh(&["-v", &list], script).ok(), "a\nb\nro\nrw\n");
}

#[test]
fn read_only_holds_for_what_is_mounted_below_too() {
    let case = Case::new();
    case.file("data/f", "");
    std::fs::create_dir(case.path("data/below")).unwrap();
    let nested = format!(
        "mount -t tmpfs none '{0}/below' && exec \"$0\" -v '{0}:/d:ro' \"$1\" sh -c 'touch /d/f /d/x /d/below/x; touch /x && echo writable; \
         mount -o remount,rw /d; mount -o remount,bind,rw /d/below; umount /d/below; touch /d/below/x'",
        text(&case.path("data"))
    );
    let mut command = std::process::Command::new("unshare");
    command.args(["-Urm", "sh", "-c", &nested]).arg(crate::support::program()).arg(case.reference());
    case.surround(&mut command);
    let finished = command.finish();
    assert_eq!((finished.status, &*finished.stdout), (1, "writable\n"), "{finished:?}");
    assert_eq!(finished.stderr.matches("Read-only file system").count(), 4, "{finished:?}");
}

#[test]
fn mount_takes_dockers_spelling() {
    let case = Case::new();
    case.file("a,b:c/f", "odd\n");
    let odd = format!("type=bind,\"source={}\",target=/odd,readonly", text(&case.path("a,b:c")));
    let tmpfs = "type=tmpfs,target=/t,tmpfs-size=64k,tmpfs-mode=0750";
    let script =
        "cat /odd/f; touch /odd/x 2>/dev/null || echo ro; stat -c %a /t; df -k /t | tail -n 1 | awk '{print $2}'";
    assert_eq!(case.sh(&["--mount", &odd, "--mount", tmpfs], script).ok(), "odd\nro\n750\n64\n");
}

#[test]
fn names_with_every_character_that_means_something_somewhere() {
    let case = Case::new();
    for name in ["a b", "a\\b", "a\\054b", "a\"b'c", "a=b", "a$(b)`c`", "ü", "a\nb", "-v", "%s{}"] {
        case.file(&format!("{name}/f"), name);
        let option = format!("{}:/m/{name}", text(&case.path(name)));
        let finished = case.gpurun(&["-v", &option], &["cat", &format!("/m/{name}/f")]).finish();
        assert_eq!(finished.ok(), name);
    }
}

#[test]
fn separators_are_escaped_and_options_that_hold_anyway_are_taken() {
    let case = Case::new();
    case.file("a,b:c\\d/f", "odd\n");
    let escaped = text(&case.path("a,b:c\\d")).replace(',', "\\,").replace(':', "\\:");
    let option = format!("{escaped}:/m\\:n:rprivate,z,cached,ro");
    assert_eq!(case.sh(&["-v", &option], "cat /m:n/f; touch /m:n/x 2>/dev/null || echo ro").ok(), "odd\nro\n");
    let mount = format!(
        "type=bind,\"src={}\",dst=/o,bind-propagation=rprivate,consistency=cached",
        text(&case.path("a,b:c\\d"))
    );
    assert_eq!(case.sh(&["--mount", &mount], "cat /o/f").ok(), "odd\n");
}

#[test]
fn what_is_mounted_below_a_bind_comes_along() {
    let case = Case::new();
    case.file("data/below/hidden", "");
    let script =
        "mount -t tmpfs none \"$D/below\" && touch \"$D/below/shown\" && exec \"$G\" -v \"$D:/d\" \"$I\" ls /d/below";
    let mut command = std::process::Command::new("unshare");
    case.surround(command.args(["-Urm", "sh", "-c", script]));
    command.env("G", crate::support::program()).env("I", case.reference()).env("D", case.path("data"));
    assert_eq!(command.finish().ok(), "shown\n");
}

#[test]
fn the_image_itself_may_have_an_odd_path() {
    let case = Case::new();
    for name in ["a:b", "a,b", "a\\b", "a b", "a\nb", "lower=x"] {
        let path = case.path(name);
        std::fs::rename(case.path("image"), &path).unwrap();
        let mut command = case.bare();
        command.arg(format!("dir:{}", text(&path))).args(["echo", "x"]);
        assert_eq!(command.finish().ok(), "x\n", "{name}");
        std::fs::rename(&path, case.path("image")).unwrap();
    }
}

#[test]
fn names_that_are_not_utf_8_work() {
    use std::os::unix::ffi::OsStrExt;
    let case = Case::new();
    let name = std::ffi::OsStr::from_bytes(b"\xff\xfe");
    std::fs::create_dir(case.path("work").join(name)).unwrap();
    std::fs::write(case.path("work").join(name).join("f"), "x\n").unwrap();
    let mut option = case.path("work").join(name).into_os_string();
    option.push(":/m/");
    option.push(name);
    let mut command = case.bare();
    command.arg("-v").arg(option).arg(case.reference()).args(["sh", "-c", "cat /m/*/f"]);
    assert_eq!(command.finish().ok(), "x\n");
}

#[test]
fn sockets_fifos_and_devices_are_bound() {
    let case = Case::new();
    let _listener = UnixListener::bind(case.path("socket")).unwrap();
    nix::unistd::mkfifo(&case.path("fifo"), Mode::S_IRWXU).unwrap();
    let (socket, fifo) = (volume(&case, "socket", ":/run/socket"), volume(&case, "fifo", ":/run/fifo"));
    let script = "test -S /run/socket && test -p /run/fifo && test -c /dev/null2 && echo x >/dev/null2 && echo ok";
    assert_eq!(case.sh(&["-v", &socket, "-v", &fifo, "-v", "/dev/null:/dev/null2"], script).ok(), "ok\n");
}

#[test]
fn links_on_the_host_are_followed_and_links_in_the_image_stay_inside() {
    let case = Case::new();
    case.file("real/f", "x\n");
    std::os::unix::fs::symlink(case.path("real"), case.path("link")).unwrap();
    case.image.dir("/target");
    case.image.link("/abs", "/target");
    case.image.link("/up", "../../../../target");
    case.image.link("/dangling", "/no/where");
    for (target, at) in [("/abs", "/target/f"), ("/up", "/target/f"), ("/abs/new", "/target/new/f")] {
        let option = volume(&case, "link", &format!(":{target}"));
        assert_eq!(case.gpurun(&["-v", &option], &["cat", at]).finish().ok(), "x\n", "{target}");
    }
    let file = volume(&case, "real/f", ":/dangling");
    assert_eq!(case.gpurun(&["-v", &file], &["cat", "/dangling"]).finish().ok(), "x\n");
    assert!(!case.image.at("/target/new").exists());
}

#[test]
fn parents_come_before_what_is_below_them() {
    let case = Case::new();
    case.file("outer/f", "outer\n");
    std::fs::create_dir(case.path("outer/inner")).unwrap();
    case.file("inner/f", "inner\n");
    let (inner, outer) = (volume(&case, "inner", ":/m/inner"), volume(&case, "outer", ":/m"));
    assert_eq!(case.sh(&["-v", &inner, "-v", &outer], "cat /m/f /m/inner/f").ok(), "outer\ninner\n");
}

#[test]
fn the_later_of_two_at_one_place_wins() {
    let case = Case::new();
    case.file("a/f", "a\n");
    case.file("b/f", "b\n");
    let (a, b) = (volume(&case, "a", ":/m"), volume(&case, "b", ":/m"));
    assert_eq!(case.sh(&["-v", &a, "-v", &b], "cat /m/f").ok(), "b\n");
}

#[test]
fn tmpfs_is_empty_and_as_large_as_asked() {
    let case = Case::new();
    case.image.file("/full/f", "");
    let script = "ls /full; stat -c %a /full; df -k /full | tail -n 1 | awk '{print $2}'; mount | grep -c 'on /full .*nosuid,nodev'";
    assert_eq!(case.sh(&["--tmpfs", "/full:size=1m,mode=700"], script).ok(), "700\n1024\n1\n");
    assert_eq!(case.sh(&["--tmpfs", "/new/place"], "stat -c %a /new/place").ok(), "1777\n");
}

#[test]
fn here_and_home() {
    let case = Case::new();
    case.file("work/f", "work\n");
    case.file("home/f", "home\n");
    assert_eq!(case.sh(&["--here"], "pwd; cat f; echo new >g").ok(), volume(&case, "work", "\nwork\n"));
    assert_eq!(std::fs::read_to_string(case.path("work/g")).unwrap(), "new\n");
    assert_eq!(case.sh(&["--home"], "cat ~/f; pwd").ok(), "home\n/\n");
    assert_eq!(case.sh(&[], "echo ~; ls -A ~").ok(), volume(&case, "home", "\n"));
}

#[test]
fn a_bind_over_what_gpurun_supplies_wins() {
    let case = Case::new();
    let hosts = case.file("hosts", "1.2.3.4 x\n");
    let passwd = case.file("passwd", "me:x:0:0::/:/bin/sh\n");
    let shm = case.path("work");
    let options = [(hosts, "/etc/hosts"), (passwd, "/etc/passwd"), (shm, "/dev/shm")];
    let options: Vec<_> = options.iter().map(|(source, target)| format!("-v{}:{target}", text(source))).collect();
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    let script = "cat /etc/hosts /etc/passwd; touch /dev/shm/x";
    assert_eq!(case.sh(&options, script).ok(), "1.2.3.4 x\nme:x:0:0::/:/bin/sh\n");
    assert!(case.path("work/x").exists());
}

#[test]
fn what_cannot_be_mounted_is_refused_by_name() {
    let case = Case::new();
    case.file("f", "");
    std::os::unix::fs::symlink("loop", case.path("loop")).unwrap();
    let (dir, file) = (text(&case.path("work")).to_owned(), text(&case.path("f")).to_owned());
    for (options, words) in [
        (["-v", "/no/such/place:/x"], ["/no/such/place", "No such file"]),
        (["-v", &format!("{}:/x", text(&case.path("loop")))], ["loop", "os error 40"]),
        (["-v", &format!("{dir}:x/y")], ["`x/y`", "absolute"]),
        (["-v", &format!("{dir}:/x/../y")], ["/x/../y", ".."]),
        (["-v", &format!("{dir}:/")], ["`/`", "mounted over"]),
        (["-v", &format!("{dir}:/proc")], ["`/proc`", "mounted over"]),
        (["-v", &format!("{dir}:/proc/fs")], ["`/proc/fs`", "mounted over"]),
        (["-v", &format!("{file}:/dev/null")], ["`/dev/null`", "mounted over"]),
        (["-v", &format!("{dir}:/dev/pts")], ["`/dev/pts`", "mounted over"]),
        (["-v", &format!("{dir}:/x:rx")], ["rx", "not known"]),
        (["-v", &format!("{dir}:/x:rshared")], ["`rshared`", "cannot appear outside"]),
        (["-v", &format!("{dir}:/x:ro,rslave")], ["`rslave`", "mounted outside later"]),
        (["-v", &format!("{dir}:/x:U")], ["`U`", "give files away"]),
        (
            ["--mount", &format!("type=bind,src={dir},dst=/x,bind-propagation=shared")],
            ["bind-propagation=shared", "outside"],
        ),
        (["-v", "name:/x"], ["name", "named volumes"]),
        (["-v", ""], ["--volume", "SRC"]),
        (["-v", ":"], ["--volume", "SRC"]),
        (["--mount", "type=volume,source=a,target=/x"], ["volume", "bind or tmpfs"]),
        (["--mount", "target=/x"], ["/x", "source"]),
        (["--mount", "type=bind,source=/no/such,target=/x"], ["/no/such", "No such file"]),
        (["--mount", "type=bind,source=/,target=/x,bogus=1"], ["bogus", "not known"]),
        (["--tmpfs", "x"], ["`x`", "absolute"]),
        (["--tmpfs", "/x:uid=5"], ["uid=5", "size="]),
        (["--tmpfs", "/x:size=0"], ["`0`", "size"]),
        (["-v", &format!("{dir}:/bin/sh")], ["/bin/sh", "Not a directory"]),
        (["-v", &format!("{file}:/bin")], ["/bin", "a directory"]),
    ] {
        case.gpurun(&options, &["echo", "ran"]).finish().refused(&words);
    }
}

/// A watch of a file system's root: it is gone when the last mount is.
struct Watch(std::fs::File);

impl Watch {
    #[allow(unsafe_code)] // calls that only a feature of nix wraps, for which all of it would be compiled twice
    fn new(root: &Path) -> Self {
        let path = CString::new(root.as_os_str().as_bytes()).unwrap();
        // SAFETY: a new descriptor, of our own.
        let watch = unsafe { std::fs::File::from_raw_fd(libc::inotify_init1(libc::IN_CLOEXEC)) };
        // SAFETY: the path ends.
        let added = unsafe { libc::inotify_add_watch(watch.as_raw_fd(), path.as_ptr(), libc::IN_UNMOUNT) };
        assert!(added >= 0, "watch {}", root.display());
        Self(watch)
    }

    fn is_there(&self) -> bool {
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", self.0.as_raw_fd())).unwrap();
        info.contains("inotify wd")
    }
}

/// Mounts a file system with the image in it, runs a command, and unmounts it.
const MOUNTS: &str = r#"
set -e
mkdir "$1"
mount -t tmpfs none "$1"
cp -a "$2" "$1/image"
echo mounted
read go
dir=$1
shift 2
"$@"
umount "$dir"
echo unmounted
read go
"#;

/// Whether a file system is in use still when a run is over that had it bound at a place, or the image in it.
fn in_use_after(bound_at: Option<&str>) -> Option<bool> {
    let case = Case::new();
    let dir = case.path("t");
    let mut command = case.mounter(MOUNTS)?;
    command.args([&dir, case.image.path()]).arg(program()).arg("-q");
    match bound_at {
        Some(place) => command.args(["-v", &volume(&case, "t", place)]).arg(case.reference()),
        None => command.arg(format!("dir:{}", text(&dir.join("image")))),
    };
    let mut running = command.arg("true").stdin(Stdio::piped()).start();
    running.until("mounted");
    let there = PathBuf::from(format!("/proc/{}/root", running.pid())).join(dir.strip_prefix("/").unwrap());
    let watch = Watch::new(&there);
    running.child.stdin.as_ref().unwrap().write_all(b"go\n").unwrap();
    running.until("unmounted");
    Some(watch.is_there())
}

#[test]
fn nothing_is_mounted_any_more_when_the_run_is_over() {
    for bound_at in [Some(":/t"), None].repeat(3) {
        assert!(!in_use_after(bound_at).unwrap_or_default(), "{bound_at:?}");
    }
}
