// floor TREE COMMAND [ARG...]: the system calls of a warm start and nothing else: the namespaces, overlay, mounts and pivot
// of `gpurun debian:bookworm COMMAND`, an init that reaps, and the exec. What gpurun takes beyond it is gpurun's own.
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/capability.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define MUST(call) ((call) < 0 ? err(1, "%s", #call) : (void)0)

static void map(const char *file, const char *format, int id) {
    char text[32];
    int fd = open(file, O_WRONLY | O_CLOEXEC), size = snprintf(text, sizeof text, format, id, id);
    MUST(write(fd, text, size));
    close(fd);
}

static void bind_file(const char *source, const char *target) {
    close(open(target, O_CREAT | O_CLOEXEC | O_RDONLY, 0644));
    MUST(mount(source, target, NULL, MS_BIND | MS_REC, NULL));
}

static int status_of(pid_t child) {
    int status;
    while (waitpid(child, &status, 0) < 0) {}
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void root(const char *tree) {
    static const char *nodes[] = {"null", "zero", "full", "random", "urandom", "tty"};
    static const char *links[][2] = {{"/proc/self/fd", "fd"}, {"fd/0", "stdin"}, {"fd/1", "stdout"}, {"fd/2", "stderr"}, {"pts/ptmx", "ptmx"}};
    static const char options[] = "lowerdir=.,upperdir=/tmp/upper,workdir=/tmp/work,userxattr";
    char source[64], target[64];
    MUST(chdir(tree)); // the tmpfs may cover it
    MUST(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
    MUST(mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=700"));
    MUST(mkdir("/tmp/upper", 0755) | mkdir("/tmp/work", 0700) | mkdir("/tmp/root", 0755));
    MUST(mount("overlay", "/tmp/root", "overlay", MS_NOSUID | MS_NODEV, options));
    MUST(chdir("/tmp/root"));
    MUST(mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL));
    MUST(mount("tmpfs", "dev", "tmpfs", MS_NOSUID, "mode=755"));
    for (size_t i = 0; i < sizeof nodes / sizeof *nodes; i++) {
        snprintf(source, sizeof source, "/dev/%s", nodes[i]);
        snprintf(target, sizeof target, "dev/%s", nodes[i]);
        bind_file(source, target);
    }
    for (size_t i = 0; i < sizeof links / sizeof *links; i++) {
        snprintf(target, sizeof target, "dev/%s", links[i][1]);
        MUST(symlink(links[i][0], target));
    }
    MUST(mkdir("dev/pts", 0755) | mkdir("dev/shm", 0755) | mkdir("dev/mqueue", 0755));
    MUST(mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620"));
    MUST(mount("/dev/shm", "dev/shm", NULL, MS_BIND | MS_REC, NULL));
    MUST(mount("/sys", "sys", NULL, MS_BIND | MS_REC, NULL));
    bind_file("/etc/resolv.conf", "etc/resolv.conf");
    bind_file("/etc/hosts", "etc/hosts");
    MUST(syscall(SYS_pivot_root, ".", "."));
    MUST(umount2(".", MNT_DETACH));
    MUST(chdir("/"));
}

static void drop_capabilities(void) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct none[2] = {{0}};
    for (int c = 0; prctl(PR_CAPBSET_DROP, c, 0, 0, 0) == 0; c++) {}
    MUST(syscall(SYS_capset, &header, none));
    MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
}

int main(int argc, char **argv) {
    int uid = getuid(), gid = getgid();
    if (argc < 3) errx(1, "floor TREE COMMAND [ARG...]");
    MUST(unshare(CLONE_NEWUSER | CLONE_NEWPID));
    map("/proc/self/setgroups", "deny", 0);
    map("/proc/self/uid_map", "%d %d 1", uid);
    map("/proc/self/gid_map", "%d %d 1", gid);
    pid_t init = fork();
    if (init) return status_of(init);
    MUST(unshare(CLONE_NEWNS));
    root(argv[1]);
    drop_capabilities();
    MUST(setsid());
    pid_t workload = vfork();
    if (workload == 0) {
        execv(argv[2], argv + 2);
        _exit(127);
    }
    _exit(status_of(workload));
}
