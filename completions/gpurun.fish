# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_gpurun_global_optspecs
    string join \n store= plain-http platform= q/quiet profile= pull= max-unpacked= timings gpus= gpu-caps= driver-root= cuda-compat= rdma no-require device= cdi-spec-dir= v/volume= mount= tmpfs= e/env= env-file= env-policy= w/workdir= u/user= root fakeroot ids= seccomp= here home entrypoint= stop-signal= read-only overlay= hostname= name= network= pid= shm-size= ulimit= dry-run t/tty i/interactive rm init l/label= h/help V/version
end

function __fish_gpurun_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_gpurun_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_gpurun_using_subcommand
    set -l cmd (__fish_gpurun_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c gpurun -n "__fish_gpurun_needs_command" -l store -d 'Directory that holds the unpacked images' -r -F
complete -c gpurun -n "__fish_gpurun_needs_command" -l platform -d 'Platform to take from a multi-platform image, as OS/ARCH[/VARIANT]' -r
complete -c gpurun -n "__fish_gpurun_needs_command" -l profile -d 'Take what the command line leaves open from this `[profile.NAME]` of the configuration files' -r
complete -c gpurun -n "__fish_gpurun_needs_command" -l pull -d 'When to ask the registry' -r -f -a "missing\t'Only for what the store does not have'
always\t'Every time; layers that are there are not fetched again'
never\t'Not at all'"
complete -c gpurun -n "__fish_gpurun_needs_command" -l max-unpacked -d 'Refuse an image of which more than this is to be unpacked, as 20g' -r
complete -c gpurun -n "__fish_gpurun_needs_command" -l gpus -d 'GPUs to inject: all, a count, device=0,1, device=GPU-…, device=MIG-…, device=0:1, none, or auto (all if there is a driver)' -r
complete -c gpurun -n "__fish_gpurun_needs_command" -l gpu-caps -d 'What of the driver to inject: compute, utility, video, graphics, display, ngx, compat32, all' -r
complete -c gpurun -n "__fish_gpurun_needs_command" -l driver-root -d 'Directory below which the driver\'s files are, if not in the system\'s own places' -r -F
complete -c gpurun -n "__fish_gpurun_needs_command" -l cuda-compat -d 'When the image\'s own newer CUDA driver library is used' -r -f -a "auto\t'Where it is needed and supported'
on\t'If the image has it'
off\t'Not at all'"
complete -c gpurun -n "__fish_gpurun_needs_command" -l device -d 'Devices: CDI names as amd.com/gpu=0, or nodes as /dev/x[:/dev/y][:rwm], several separated by commas' -r
complete -c gpurun -n "__fish_gpurun_needs_command" -l cdi-spec-dir -d 'Directory of CDI specs, instead of /etc/cdi and /var/run/cdi; of several the last counts most' -r -F
complete -c gpurun -n "__fish_gpurun_needs_command" -s v -l volume -d 'Bind a host path: SRC[:DST][:OPTIONS], several separated by commas' -r
complete -c gpurun -n "__fish_gpurun_needs_command" -l mount -d 'Mount: type=bind|tmpfs,source=…,target=…[,readonly]' -r
complete -c gpurun -n "__fish_gpurun_needs_command" -l tmpfs -d 'Mount a tmpfs: DST[:size=…,mode=…]' -r
complete -c gpurun -n "__fish_gpurun_needs_command" -s e -l env -d 'Set a variable: K=V, or take it from the host: K, \'GLOB_*\'' -r
complete -c gpurun -n "__fish_gpurun_needs_command" -l env-file -d 'Set variables from a file of K=V lines' -r -F
complete -c gpurun -n "__fish_gpurun_needs_command" -l env-policy -d 'What the host\'s environment contributes' -r -f -a "hpc\t'Job, MPI, locale and proxy variables; never PATH, LD_*, PYTHON*'
image\t'Nothing'
host\t'Everything but what belongs to the host\'s own software'"
complete -c gpurun -n "__fish_gpurun_needs_command" -s w -l workdir -d 'Start in this directory' -r -F
complete -c gpurun -n "__fish_gpurun_needs_command" -s u -l user -d 'Appear as this user inside: NAME|UID[:GROUP|GID]' -r
complete -c gpurun -n "__fish_gpurun_needs_command" -l ids -d 'Ids that there are inside' -r -f -a "auto\t'One, as nothing needs another'
single\t'The caller\'s, under whatever number: no subordinate ids are needed'
range\t'The caller\'s and its subordinate ones (/etc/subuid), so that owners and users can be changed for real'"
complete -c gpurun -n "__fish_gpurun_needs_command" -l seccomp -d 'Refuse system calls: default (Docker\'s profile), none, or a profile of Docker\'s format' -r
complete -c gpurun -n "__fish_gpurun_needs_command" -l entrypoint -d 'Replace the image\'s entrypoint; an empty one removes it' -r
complete -c gpurun -n "__fish_gpurun_needs_command" -l stop-signal -d 'Signal that the workload gets when gpurun gets SIGTERM' -r
complete -c gpurun -n "__fish_gpurun_needs_command" -l overlay -d 'Keep what the workload writes in this directory, for later runs' -r -F
complete -c gpurun -n "__fish_gpurun_needs_command" -l hostname -d 'Host name inside' -r
complete -c gpurun -n "__fish_gpurun_needs_command" -l name -d 'Name of this run, seen inside as GPURUN_NAME' -r
complete -c gpurun -n "__fish_gpurun_needs_command" -l network -d 'Network' -r -f -a "host\t'The host\'s'
none\t'None but loopback'"
complete -c gpurun -n "__fish_gpurun_needs_command" -l pid -d 'Process namespace' -r -f -a "private\t'Its own'
host\t'The host\'s'"
complete -c gpurun -n "__fish_gpurun_needs_command" -l shm-size -d 'Size of a private /dev/shm, as 64m or 2g (the default is the host\'s own)' -r
complete -c gpurun -n "__fish_gpurun_needs_command" -l ulimit -d 'Set a resource limit: NAME=SOFT[:HARD]' -r
complete -c gpurun -n "__fish_gpurun_needs_command" -s l -l label -d 'Accepted as Docker has it: nothing reads labels' -r
complete -c gpurun -n "__fish_gpurun_needs_command" -l plain-http -d 'Allow registries without TLS (loopback ones always may)'
complete -c gpurun -n "__fish_gpurun_needs_command" -s q -l quiet -d 'Print nothing but errors'
complete -c gpurun -n "__fish_gpurun_needs_command" -l timings -d 'Print where the time went, phase by phase, to standard error'
complete -c gpurun -n "__fish_gpurun_needs_command" -l rdma -d 'Give the host\'s InfiniBand and RoCE adapters'
complete -c gpurun -n "__fish_gpurun_needs_command" -l no-require -d 'Run even if the driver is not what the image requires'
complete -c gpurun -n "__fish_gpurun_needs_command" -l root -d 'Appear as root inside (the default is the caller\'s own uid and gid)'
complete -c gpurun -n "__fish_gpurun_needs_command" -l fakeroot -d 'Appear as root for whom changes of owners and ids succeed, as apt and dnf need it, though nothing changes'
complete -c gpurun -n "__fish_gpurun_needs_command" -l here -d 'Bind the current directory at the same path and start there'
complete -c gpurun -n "__fish_gpurun_needs_command" -l home -d 'Bind the home directory at the same path'
complete -c gpurun -n "__fish_gpurun_needs_command" -l read-only -d 'Make the root file system read-only'
complete -c gpurun -n "__fish_gpurun_needs_command" -l dry-run -d 'Print what would run and why, and start nothing'
complete -c gpurun -n "__fish_gpurun_needs_command" -s t -l tty -d 'Accepted as Docker has it: a terminal is used when stdin and stdout are one'
complete -c gpurun -n "__fish_gpurun_needs_command" -s i -l interactive -d 'Accepted as Docker has it: stdin is always passed'
complete -c gpurun -n "__fish_gpurun_needs_command" -l rm -d 'Accepted as Docker has it: nothing of a run ever stays'
complete -c gpurun -n "__fish_gpurun_needs_command" -l init -d 'Accepted as Docker has it: there is always an init'
complete -c gpurun -n "__fish_gpurun_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c gpurun -n "__fish_gpurun_needs_command" -s V -l version -d 'Print version'
complete -c gpurun -n "__fish_gpurun_needs_command" -a "run" -d 'Run a command in an image (also what `gpurun IMAGE` does)'
complete -c gpurun -n "__fish_gpurun_needs_command" -a "pull" -d 'Fetch an image into the store'
complete -c gpurun -n "__fish_gpurun_needs_command" -a "images" -d 'List the images in the store'
complete -c gpurun -n "__fish_gpurun_needs_command" -a "inspect" -d 'Print what an image in the store is'
complete -c gpurun -n "__fish_gpurun_needs_command" -a "rm" -d 'Remove images from the store'
complete -c gpurun -n "__fish_gpurun_needs_command" -a "prune" -d 'Remove images that were not used for long, and what nothing refers to'
complete -c gpurun -n "__fish_gpurun_needs_command" -a "login" -d 'Keep a name and a password for a registry, once it has taken them'
complete -c gpurun -n "__fish_gpurun_needs_command" -a "logout" -d 'Forget what is kept for a registry'
complete -c gpurun -n "__fish_gpurun_needs_command" -a "exec" -d 'Run another command in the container of a run'
complete -c gpurun -n "__fish_gpurun_needs_command" -a "ps" -d 'List your runs on this machine'
complete -c gpurun -n "__fish_gpurun_needs_command" -a "explain" -d 'Print what `run` would do and why, and start nothing'
complete -c gpurun -n "__fish_gpurun_needs_command" -a "spec" -d 'Print the OCI runtime spec of what `run` would do, and start nothing'
complete -c gpurun -n "__fish_gpurun_needs_command" -a "gpus" -d 'List the GPUs, whether they can be used and why not, and the driver\'s files'
complete -c gpurun -n "__fish_gpurun_needs_command" -a "cdi" -d 'Describe the GPUs to other container engines'
complete -c gpurun -n "__fish_gpurun_needs_command" -a "completions" -d 'Print the completion script of a shell'
complete -c gpurun -n "__fish_gpurun_needs_command" -a "man" -d 'Print the man page'
complete -c gpurun -n "__fish_gpurun_needs_command" -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c gpurun -n "__fish_gpurun_using_subcommand run" -l store -d 'Directory that holds the unpacked images' -r -F
complete -c gpurun -n "__fish_gpurun_using_subcommand run" -l platform -d 'Platform to take from a multi-platform image, as OS/ARCH[/VARIANT]' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand run" -l profile -d 'Take what the command line leaves open from this `[profile.NAME]` of the configuration files' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand run" -l pull -d 'When to ask the registry' -r -f -a "missing\t'Only for what the store does not have'
always\t'Every time; layers that are there are not fetched again'
never\t'Not at all'"
complete -c gpurun -n "__fish_gpurun_using_subcommand run" -l max-unpacked -d 'Refuse an image of which more than this is to be unpacked, as 20g' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand run" -l gpus -d 'GPUs to inject: all, a count, device=0,1, device=GPU-…, device=MIG-…, device=0:1, none, or auto (all if there is a driver)' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand run" -l gpu-caps -d 'What of the driver to inject: compute, utility, video, graphics, display, ngx, compat32, all' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand run" -l driver-root -d 'Directory below which the driver\'s files are, if not in the system\'s own places' -r -F
complete -c gpurun -n "__fish_gpurun_using_subcommand run" -l cuda-compat -d 'When the image\'s own newer CUDA driver library is used' -r -f -a "auto\t'Where it is needed and supported'
on\t'If the image has it'
off\t'Not at all'"
complete -c gpurun -n "__fish_gpurun_using_subcommand run" -l device -d 'Devices: CDI names as amd.com/gpu=0, or nodes as /dev/x[:/dev/y][:rwm], several separated by commas' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand run" -l cdi-spec-dir -d 'Directory of CDI specs, instead of /etc/cdi and /var/run/cdi; of several the last counts most' -r -F
complete -c gpurun -n "__fish_gpurun_using_subcommand run" -s v -l volume -d 'Bind a host path: SRC[:DST][:OPTIONS], several separated by commas' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand run" -l mount -d 'Mount: type=bind|tmpfs,source=…,target=…[,readonly]' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand run" -l tmpfs -d 'Mount a tmpfs: DST[:size=…,mode=…]' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand run" -s e -l env -d 'Set a variable: K=V, or take it from the host: K, \'GLOB_*\'' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand run" -l env-file -d 'Set variables from a file of K=V lines' -r -F
complete -c gpurun -n "__fish_gpurun_using_subcommand run" -l env-policy -d 'What the host\'s environment contributes' -r -f -a "hpc\t'Job, MPI, locale and proxy variables; never PATH, LD_*, PYTHON*'
image\t'Nothing'
host\t'Everything but what belongs to the host\'s own software'"
complete -c gpurun -n "__fish_gpurun_using_subcommand run" -s w -l workdir -d 'Start in this directory' -r -F
complete -c gpurun -n "__fish_gpurun_using_subcommand run" -s u -l user -d 'Appear as this user inside: NAME|UID[:GROUP|GID]' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand run" -l ids -d 'Ids that there are inside' -r -f -a "auto\t'One, as nothing needs another'
single\t'The caller\'s, under whatever number: no subordinate ids are needed'
range\t'The caller\'s and its subordinate ones (/etc/subuid), so that owners and users can be changed for real'"
complete -c gpurun -n "__fish_gpurun_using_subcommand run" -l seccomp -d 'Refuse system calls: default (Docker\'s profile), none, or a profile of Docker\'s format' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand run" -l entrypoint -d 'Replace the image\'s entrypoint; an empty one removes it' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand run" -l stop-signal -d 'Signal that the workload gets when gpurun gets SIGTERM' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand run" -l overlay -d 'Keep what the workload writes in this directory, for later runs' -r -F
complete -c gpurun -n "__fish_gpurun_using_subcommand run" -l hostname -d 'Host name inside' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand run" -l name -d 'Name of this run, seen inside as GPURUN_NAME' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand run" -l network -d 'Network' -r -f -a "host\t'The host\'s'
none\t'None but loopback'"
complete -c gpurun -n "__fish_gpurun_using_subcommand run" -l pid -d 'Process namespace' -r -f -a "private\t'Its own'
host\t'The host\'s'"
complete -c gpurun -n "__fish_gpurun_using_subcommand run" -l shm-size -d 'Size of a private /dev/shm, as 64m or 2g (the default is the host\'s own)' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand run" -l ulimit -d 'Set a resource limit: NAME=SOFT[:HARD]' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand run" -s l -l label -d 'Accepted as Docker has it: nothing reads labels' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand run" -l plain-http -d 'Allow registries without TLS (loopback ones always may)'
complete -c gpurun -n "__fish_gpurun_using_subcommand run" -s q -l quiet -d 'Print nothing but errors'
complete -c gpurun -n "__fish_gpurun_using_subcommand run" -l timings -d 'Print where the time went, phase by phase, to standard error'
complete -c gpurun -n "__fish_gpurun_using_subcommand run" -l rdma -d 'Give the host\'s InfiniBand and RoCE adapters'
complete -c gpurun -n "__fish_gpurun_using_subcommand run" -l no-require -d 'Run even if the driver is not what the image requires'
complete -c gpurun -n "__fish_gpurun_using_subcommand run" -l root -d 'Appear as root inside (the default is the caller\'s own uid and gid)'
complete -c gpurun -n "__fish_gpurun_using_subcommand run" -l fakeroot -d 'Appear as root for whom changes of owners and ids succeed, as apt and dnf need it, though nothing changes'
complete -c gpurun -n "__fish_gpurun_using_subcommand run" -l here -d 'Bind the current directory at the same path and start there'
complete -c gpurun -n "__fish_gpurun_using_subcommand run" -l home -d 'Bind the home directory at the same path'
complete -c gpurun -n "__fish_gpurun_using_subcommand run" -l read-only -d 'Make the root file system read-only'
complete -c gpurun -n "__fish_gpurun_using_subcommand run" -l dry-run -d 'Print what would run and why, and start nothing'
complete -c gpurun -n "__fish_gpurun_using_subcommand run" -s t -l tty -d 'Accepted as Docker has it: a terminal is used when stdin and stdout are one'
complete -c gpurun -n "__fish_gpurun_using_subcommand run" -s i -l interactive -d 'Accepted as Docker has it: stdin is always passed'
complete -c gpurun -n "__fish_gpurun_using_subcommand run" -l rm -d 'Accepted as Docker has it: nothing of a run ever stays'
complete -c gpurun -n "__fish_gpurun_using_subcommand run" -l init -d 'Accepted as Docker has it: there is always an init'
complete -c gpurun -n "__fish_gpurun_using_subcommand run" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c gpurun -n "__fish_gpurun_using_subcommand pull" -l store -d 'Directory that holds the unpacked images' -r -F
complete -c gpurun -n "__fish_gpurun_using_subcommand pull" -l platform -d 'Platform to take from a multi-platform image, as OS/ARCH[/VARIANT]' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand pull" -l profile -d 'Take what the command line leaves open from this `[profile.NAME]` of the configuration files' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand pull" -l max-unpacked -d 'Refuse an image of which more than this is to be unpacked, as 20g' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand pull" -l plain-http -d 'Allow registries without TLS (loopback ones always may)'
complete -c gpurun -n "__fish_gpurun_using_subcommand pull" -s q -l quiet -d 'Print nothing but errors'
complete -c gpurun -n "__fish_gpurun_using_subcommand pull" -l timings -d 'Print where the time went, phase by phase, to standard error'
complete -c gpurun -n "__fish_gpurun_using_subcommand pull" -l json -d 'Print the facts as JSON'
complete -c gpurun -n "__fish_gpurun_using_subcommand pull" -s h -l help -d 'Print help'
complete -c gpurun -n "__fish_gpurun_using_subcommand images" -l store -d 'Directory that holds the unpacked images' -r -F
complete -c gpurun -n "__fish_gpurun_using_subcommand images" -l platform -d 'Platform to take from a multi-platform image, as OS/ARCH[/VARIANT]' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand images" -l profile -d 'Take what the command line leaves open from this `[profile.NAME]` of the configuration files' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand images" -l plain-http -d 'Allow registries without TLS (loopback ones always may)'
complete -c gpurun -n "__fish_gpurun_using_subcommand images" -s q -l quiet -d 'Print nothing but errors'
complete -c gpurun -n "__fish_gpurun_using_subcommand images" -l json -d 'Print the facts as JSON'
complete -c gpurun -n "__fish_gpurun_using_subcommand images" -s h -l help -d 'Print help'
complete -c gpurun -n "__fish_gpurun_using_subcommand inspect" -l store -d 'Directory that holds the unpacked images' -r -F
complete -c gpurun -n "__fish_gpurun_using_subcommand inspect" -l platform -d 'Platform to take from a multi-platform image, as OS/ARCH[/VARIANT]' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand inspect" -l profile -d 'Take what the command line leaves open from this `[profile.NAME]` of the configuration files' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand inspect" -l plain-http -d 'Allow registries without TLS (loopback ones always may)'
complete -c gpurun -n "__fish_gpurun_using_subcommand inspect" -s q -l quiet -d 'Print nothing but errors'
complete -c gpurun -n "__fish_gpurun_using_subcommand inspect" -l json -d 'Print the facts as JSON'
complete -c gpurun -n "__fish_gpurun_using_subcommand inspect" -s h -l help -d 'Print help'
complete -c gpurun -n "__fish_gpurun_using_subcommand rm" -l store -d 'Directory that holds the unpacked images' -r -F
complete -c gpurun -n "__fish_gpurun_using_subcommand rm" -l platform -d 'Platform to take from a multi-platform image, as OS/ARCH[/VARIANT]' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand rm" -l profile -d 'Take what the command line leaves open from this `[profile.NAME]` of the configuration files' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand rm" -l plain-http -d 'Allow registries without TLS (loopback ones always may)'
complete -c gpurun -n "__fish_gpurun_using_subcommand rm" -s q -l quiet -d 'Print nothing but errors'
complete -c gpurun -n "__fish_gpurun_using_subcommand rm" -s h -l help -d 'Print help'
complete -c gpurun -n "__fish_gpurun_using_subcommand prune" -l store -d 'Directory that holds the unpacked images' -r -F
complete -c gpurun -n "__fish_gpurun_using_subcommand prune" -l platform -d 'Platform to take from a multi-platform image, as OS/ARCH[/VARIANT]' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand prune" -l profile -d 'Take what the command line leaves open from this `[profile.NAME]` of the configuration files' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand prune" -l unused -d 'Remove images that were not used for so long, as 12h or 30d' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand prune" -l max-size -d 'Remove the least recently used until all files take no more than this, as 200g' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand prune" -l plain-http -d 'Allow registries without TLS (loopback ones always may)'
complete -c gpurun -n "__fish_gpurun_using_subcommand prune" -s q -l quiet -d 'Print nothing but errors'
complete -c gpurun -n "__fish_gpurun_using_subcommand prune" -l json -d 'Print what was removed as JSON'
complete -c gpurun -n "__fish_gpurun_using_subcommand prune" -s h -l help -d 'Print help'
complete -c gpurun -n "__fish_gpurun_using_subcommand login" -s u -l username -d 'Name to log in with' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand login" -l profile -d 'Take what the command line leaves open from this `[profile.NAME]` of the configuration files' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand login" -l password-stdin -d 'Take the password from standard input'
complete -c gpurun -n "__fish_gpurun_using_subcommand login" -l plain-http -d 'Send the password to a registry without TLS (loopback ones always may get it)'
complete -c gpurun -n "__fish_gpurun_using_subcommand login" -s h -l help -d 'Print help'
complete -c gpurun -n "__fish_gpurun_using_subcommand logout" -s h -l help -d 'Print help'
complete -c gpurun -n "__fish_gpurun_using_subcommand exec" -s e -l env -d 'Set a variable: K=V, or take it from the host: K, \'GLOB_*\'' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand exec" -s w -l workdir -d 'Start in this directory (the default is the workload\'s)' -r -F
complete -c gpurun -n "__fish_gpurun_using_subcommand exec" -s u -l user -d 'Run as this user (the default is the workload\'s): NAME|UID[:GROUP|GID]' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand exec" -s t -l tty -d 'Accepted as Docker has it: a terminal is used when stdin and stdout are one'
complete -c gpurun -n "__fish_gpurun_using_subcommand exec" -s i -l interactive -d 'Accepted as Docker has it: stdin is always passed'
complete -c gpurun -n "__fish_gpurun_using_subcommand exec" -s h -l help -d 'Print help'
complete -c gpurun -n "__fish_gpurun_using_subcommand ps" -l json -d 'Print the facts as JSON'
complete -c gpurun -n "__fish_gpurun_using_subcommand ps" -s h -l help -d 'Print help'
complete -c gpurun -n "__fish_gpurun_using_subcommand explain" -l store -d 'Directory that holds the unpacked images' -r -F
complete -c gpurun -n "__fish_gpurun_using_subcommand explain" -l platform -d 'Platform to take from a multi-platform image, as OS/ARCH[/VARIANT]' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand explain" -l profile -d 'Take what the command line leaves open from this `[profile.NAME]` of the configuration files' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand explain" -l pull -d 'When to ask the registry' -r -f -a "missing\t'Only for what the store does not have'
always\t'Every time; layers that are there are not fetched again'
never\t'Not at all'"
complete -c gpurun -n "__fish_gpurun_using_subcommand explain" -l max-unpacked -d 'Refuse an image of which more than this is to be unpacked, as 20g' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand explain" -l gpus -d 'GPUs to inject: all, a count, device=0,1, device=GPU-…, device=MIG-…, device=0:1, none, or auto (all if there is a driver)' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand explain" -l gpu-caps -d 'What of the driver to inject: compute, utility, video, graphics, display, ngx, compat32, all' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand explain" -l driver-root -d 'Directory below which the driver\'s files are, if not in the system\'s own places' -r -F
complete -c gpurun -n "__fish_gpurun_using_subcommand explain" -l cuda-compat -d 'When the image\'s own newer CUDA driver library is used' -r -f -a "auto\t'Where it is needed and supported'
on\t'If the image has it'
off\t'Not at all'"
complete -c gpurun -n "__fish_gpurun_using_subcommand explain" -l device -d 'Devices: CDI names as amd.com/gpu=0, or nodes as /dev/x[:/dev/y][:rwm], several separated by commas' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand explain" -l cdi-spec-dir -d 'Directory of CDI specs, instead of /etc/cdi and /var/run/cdi; of several the last counts most' -r -F
complete -c gpurun -n "__fish_gpurun_using_subcommand explain" -s v -l volume -d 'Bind a host path: SRC[:DST][:OPTIONS], several separated by commas' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand explain" -l mount -d 'Mount: type=bind|tmpfs,source=…,target=…[,readonly]' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand explain" -l tmpfs -d 'Mount a tmpfs: DST[:size=…,mode=…]' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand explain" -s e -l env -d 'Set a variable: K=V, or take it from the host: K, \'GLOB_*\'' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand explain" -l env-file -d 'Set variables from a file of K=V lines' -r -F
complete -c gpurun -n "__fish_gpurun_using_subcommand explain" -l env-policy -d 'What the host\'s environment contributes' -r -f -a "hpc\t'Job, MPI, locale and proxy variables; never PATH, LD_*, PYTHON*'
image\t'Nothing'
host\t'Everything but what belongs to the host\'s own software'"
complete -c gpurun -n "__fish_gpurun_using_subcommand explain" -s w -l workdir -d 'Start in this directory' -r -F
complete -c gpurun -n "__fish_gpurun_using_subcommand explain" -s u -l user -d 'Appear as this user inside: NAME|UID[:GROUP|GID]' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand explain" -l ids -d 'Ids that there are inside' -r -f -a "auto\t'One, as nothing needs another'
single\t'The caller\'s, under whatever number: no subordinate ids are needed'
range\t'The caller\'s and its subordinate ones (/etc/subuid), so that owners and users can be changed for real'"
complete -c gpurun -n "__fish_gpurun_using_subcommand explain" -l seccomp -d 'Refuse system calls: default (Docker\'s profile), none, or a profile of Docker\'s format' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand explain" -l entrypoint -d 'Replace the image\'s entrypoint; an empty one removes it' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand explain" -l stop-signal -d 'Signal that the workload gets when gpurun gets SIGTERM' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand explain" -l overlay -d 'Keep what the workload writes in this directory, for later runs' -r -F
complete -c gpurun -n "__fish_gpurun_using_subcommand explain" -l hostname -d 'Host name inside' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand explain" -l name -d 'Name of this run, seen inside as GPURUN_NAME' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand explain" -l network -d 'Network' -r -f -a "host\t'The host\'s'
none\t'None but loopback'"
complete -c gpurun -n "__fish_gpurun_using_subcommand explain" -l pid -d 'Process namespace' -r -f -a "private\t'Its own'
host\t'The host\'s'"
complete -c gpurun -n "__fish_gpurun_using_subcommand explain" -l shm-size -d 'Size of a private /dev/shm, as 64m or 2g (the default is the host\'s own)' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand explain" -l ulimit -d 'Set a resource limit: NAME=SOFT[:HARD]' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand explain" -s l -l label -d 'Accepted as Docker has it: nothing reads labels' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand explain" -l json -d 'Print the plan as JSON'
complete -c gpurun -n "__fish_gpurun_using_subcommand explain" -l plain-http -d 'Allow registries without TLS (loopback ones always may)'
complete -c gpurun -n "__fish_gpurun_using_subcommand explain" -s q -l quiet -d 'Print nothing but errors'
complete -c gpurun -n "__fish_gpurun_using_subcommand explain" -l timings -d 'Print where the time went, phase by phase, to standard error'
complete -c gpurun -n "__fish_gpurun_using_subcommand explain" -l rdma -d 'Give the host\'s InfiniBand and RoCE adapters'
complete -c gpurun -n "__fish_gpurun_using_subcommand explain" -l no-require -d 'Run even if the driver is not what the image requires'
complete -c gpurun -n "__fish_gpurun_using_subcommand explain" -l root -d 'Appear as root inside (the default is the caller\'s own uid and gid)'
complete -c gpurun -n "__fish_gpurun_using_subcommand explain" -l fakeroot -d 'Appear as root for whom changes of owners and ids succeed, as apt and dnf need it, though nothing changes'
complete -c gpurun -n "__fish_gpurun_using_subcommand explain" -l here -d 'Bind the current directory at the same path and start there'
complete -c gpurun -n "__fish_gpurun_using_subcommand explain" -l home -d 'Bind the home directory at the same path'
complete -c gpurun -n "__fish_gpurun_using_subcommand explain" -l read-only -d 'Make the root file system read-only'
complete -c gpurun -n "__fish_gpurun_using_subcommand explain" -l dry-run -d 'Print what would run and why, and start nothing'
complete -c gpurun -n "__fish_gpurun_using_subcommand explain" -s t -l tty -d 'Accepted as Docker has it: a terminal is used when stdin and stdout are one'
complete -c gpurun -n "__fish_gpurun_using_subcommand explain" -s i -l interactive -d 'Accepted as Docker has it: stdin is always passed'
complete -c gpurun -n "__fish_gpurun_using_subcommand explain" -l rm -d 'Accepted as Docker has it: nothing of a run ever stays'
complete -c gpurun -n "__fish_gpurun_using_subcommand explain" -l init -d 'Accepted as Docker has it: there is always an init'
complete -c gpurun -n "__fish_gpurun_using_subcommand explain" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c gpurun -n "__fish_gpurun_using_subcommand spec" -l store -d 'Directory that holds the unpacked images' -r -F
complete -c gpurun -n "__fish_gpurun_using_subcommand spec" -l platform -d 'Platform to take from a multi-platform image, as OS/ARCH[/VARIANT]' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand spec" -l profile -d 'Take what the command line leaves open from this `[profile.NAME]` of the configuration files' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand spec" -l pull -d 'When to ask the registry' -r -f -a "missing\t'Only for what the store does not have'
always\t'Every time; layers that are there are not fetched again'
never\t'Not at all'"
complete -c gpurun -n "__fish_gpurun_using_subcommand spec" -l max-unpacked -d 'Refuse an image of which more than this is to be unpacked, as 20g' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand spec" -l gpus -d 'GPUs to inject: all, a count, device=0,1, device=GPU-…, device=MIG-…, device=0:1, none, or auto (all if there is a driver)' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand spec" -l gpu-caps -d 'What of the driver to inject: compute, utility, video, graphics, display, ngx, compat32, all' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand spec" -l driver-root -d 'Directory below which the driver\'s files are, if not in the system\'s own places' -r -F
complete -c gpurun -n "__fish_gpurun_using_subcommand spec" -l cuda-compat -d 'When the image\'s own newer CUDA driver library is used' -r -f -a "auto\t'Where it is needed and supported'
on\t'If the image has it'
off\t'Not at all'"
complete -c gpurun -n "__fish_gpurun_using_subcommand spec" -l device -d 'Devices: CDI names as amd.com/gpu=0, or nodes as /dev/x[:/dev/y][:rwm], several separated by commas' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand spec" -l cdi-spec-dir -d 'Directory of CDI specs, instead of /etc/cdi and /var/run/cdi; of several the last counts most' -r -F
complete -c gpurun -n "__fish_gpurun_using_subcommand spec" -s v -l volume -d 'Bind a host path: SRC[:DST][:OPTIONS], several separated by commas' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand spec" -l mount -d 'Mount: type=bind|tmpfs,source=…,target=…[,readonly]' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand spec" -l tmpfs -d 'Mount a tmpfs: DST[:size=…,mode=…]' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand spec" -s e -l env -d 'Set a variable: K=V, or take it from the host: K, \'GLOB_*\'' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand spec" -l env-file -d 'Set variables from a file of K=V lines' -r -F
complete -c gpurun -n "__fish_gpurun_using_subcommand spec" -l env-policy -d 'What the host\'s environment contributes' -r -f -a "hpc\t'Job, MPI, locale and proxy variables; never PATH, LD_*, PYTHON*'
image\t'Nothing'
host\t'Everything but what belongs to the host\'s own software'"
complete -c gpurun -n "__fish_gpurun_using_subcommand spec" -s w -l workdir -d 'Start in this directory' -r -F
complete -c gpurun -n "__fish_gpurun_using_subcommand spec" -s u -l user -d 'Appear as this user inside: NAME|UID[:GROUP|GID]' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand spec" -l ids -d 'Ids that there are inside' -r -f -a "auto\t'One, as nothing needs another'
single\t'The caller\'s, under whatever number: no subordinate ids are needed'
range\t'The caller\'s and its subordinate ones (/etc/subuid), so that owners and users can be changed for real'"
complete -c gpurun -n "__fish_gpurun_using_subcommand spec" -l seccomp -d 'Refuse system calls: default (Docker\'s profile), none, or a profile of Docker\'s format' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand spec" -l entrypoint -d 'Replace the image\'s entrypoint; an empty one removes it' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand spec" -l stop-signal -d 'Signal that the workload gets when gpurun gets SIGTERM' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand spec" -l overlay -d 'Keep what the workload writes in this directory, for later runs' -r -F
complete -c gpurun -n "__fish_gpurun_using_subcommand spec" -l hostname -d 'Host name inside' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand spec" -l name -d 'Name of this run, seen inside as GPURUN_NAME' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand spec" -l network -d 'Network' -r -f -a "host\t'The host\'s'
none\t'None but loopback'"
complete -c gpurun -n "__fish_gpurun_using_subcommand spec" -l pid -d 'Process namespace' -r -f -a "private\t'Its own'
host\t'The host\'s'"
complete -c gpurun -n "__fish_gpurun_using_subcommand spec" -l shm-size -d 'Size of a private /dev/shm, as 64m or 2g (the default is the host\'s own)' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand spec" -l ulimit -d 'Set a resource limit: NAME=SOFT[:HARD]' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand spec" -s l -l label -d 'Accepted as Docker has it: nothing reads labels' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand spec" -l plain-http -d 'Allow registries without TLS (loopback ones always may)'
complete -c gpurun -n "__fish_gpurun_using_subcommand spec" -s q -l quiet -d 'Print nothing but errors'
complete -c gpurun -n "__fish_gpurun_using_subcommand spec" -l timings -d 'Print where the time went, phase by phase, to standard error'
complete -c gpurun -n "__fish_gpurun_using_subcommand spec" -l rdma -d 'Give the host\'s InfiniBand and RoCE adapters'
complete -c gpurun -n "__fish_gpurun_using_subcommand spec" -l no-require -d 'Run even if the driver is not what the image requires'
complete -c gpurun -n "__fish_gpurun_using_subcommand spec" -l root -d 'Appear as root inside (the default is the caller\'s own uid and gid)'
complete -c gpurun -n "__fish_gpurun_using_subcommand spec" -l fakeroot -d 'Appear as root for whom changes of owners and ids succeed, as apt and dnf need it, though nothing changes'
complete -c gpurun -n "__fish_gpurun_using_subcommand spec" -l here -d 'Bind the current directory at the same path and start there'
complete -c gpurun -n "__fish_gpurun_using_subcommand spec" -l home -d 'Bind the home directory at the same path'
complete -c gpurun -n "__fish_gpurun_using_subcommand spec" -l read-only -d 'Make the root file system read-only'
complete -c gpurun -n "__fish_gpurun_using_subcommand spec" -l dry-run -d 'Print what would run and why, and start nothing'
complete -c gpurun -n "__fish_gpurun_using_subcommand spec" -s t -l tty -d 'Accepted as Docker has it: a terminal is used when stdin and stdout are one'
complete -c gpurun -n "__fish_gpurun_using_subcommand spec" -s i -l interactive -d 'Accepted as Docker has it: stdin is always passed'
complete -c gpurun -n "__fish_gpurun_using_subcommand spec" -l rm -d 'Accepted as Docker has it: nothing of a run ever stays'
complete -c gpurun -n "__fish_gpurun_using_subcommand spec" -l init -d 'Accepted as Docker has it: there is always an init'
complete -c gpurun -n "__fish_gpurun_using_subcommand spec" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c gpurun -n "__fish_gpurun_using_subcommand gpus" -l gpu-caps -d 'What of the driver to list: compute, utility, video, graphics, display, ngx, compat32, all' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand gpus" -l driver-root -d 'Directory below which the driver\'s files are, if not in the system\'s own places' -r -F
complete -c gpurun -n "__fish_gpurun_using_subcommand gpus" -l profile -d 'Take what the command line leaves open from this `[profile.NAME]` of the configuration files' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand gpus" -l json -d 'Print the facts as JSON'
complete -c gpurun -n "__fish_gpurun_using_subcommand gpus" -s h -l help -d 'Print help'
complete -c gpurun -n "__fish_gpurun_using_subcommand cdi; and not __fish_seen_subcommand_from generate help" -s h -l help -d 'Print help'
complete -c gpurun -n "__fish_gpurun_using_subcommand cdi; and not __fish_seen_subcommand_from generate help" -f -a "generate" -d 'Print a CDI spec of this machine\'s GPUs and driver, as JSON'
complete -c gpurun -n "__fish_gpurun_using_subcommand cdi; and not __fish_seen_subcommand_from generate help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c gpurun -n "__fish_gpurun_using_subcommand cdi; and __fish_seen_subcommand_from generate" -l gpu-caps -d 'What of the driver to list: compute, utility, video, graphics, display, ngx, compat32, all' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand cdi; and __fish_seen_subcommand_from generate" -l driver-root -d 'Directory below which the driver\'s files are, if not in the system\'s own places' -r -F
complete -c gpurun -n "__fish_gpurun_using_subcommand cdi; and __fish_seen_subcommand_from generate" -l profile -d 'Take what the command line leaves open from this `[profile.NAME]` of the configuration files' -r
complete -c gpurun -n "__fish_gpurun_using_subcommand cdi; and __fish_seen_subcommand_from generate" -s h -l help -d 'Print help'
complete -c gpurun -n "__fish_gpurun_using_subcommand cdi; and __fish_seen_subcommand_from help" -f -a "generate" -d 'Print a CDI spec of this machine\'s GPUs and driver, as JSON'
complete -c gpurun -n "__fish_gpurun_using_subcommand cdi; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c gpurun -n "__fish_gpurun_using_subcommand completions" -s h -l help -d 'Print help'
complete -c gpurun -n "__fish_gpurun_using_subcommand man" -s h -l help -d 'Print help'
complete -c gpurun -n "__fish_gpurun_using_subcommand help; and not __fish_seen_subcommand_from run pull images inspect rm prune login logout exec ps explain spec gpus cdi completions man help" -f -a "run" -d 'Run a command in an image (also what `gpurun IMAGE` does)'
complete -c gpurun -n "__fish_gpurun_using_subcommand help; and not __fish_seen_subcommand_from run pull images inspect rm prune login logout exec ps explain spec gpus cdi completions man help" -f -a "pull" -d 'Fetch an image into the store'
complete -c gpurun -n "__fish_gpurun_using_subcommand help; and not __fish_seen_subcommand_from run pull images inspect rm prune login logout exec ps explain spec gpus cdi completions man help" -f -a "images" -d 'List the images in the store'
complete -c gpurun -n "__fish_gpurun_using_subcommand help; and not __fish_seen_subcommand_from run pull images inspect rm prune login logout exec ps explain spec gpus cdi completions man help" -f -a "inspect" -d 'Print what an image in the store is'
complete -c gpurun -n "__fish_gpurun_using_subcommand help; and not __fish_seen_subcommand_from run pull images inspect rm prune login logout exec ps explain spec gpus cdi completions man help" -f -a "rm" -d 'Remove images from the store'
complete -c gpurun -n "__fish_gpurun_using_subcommand help; and not __fish_seen_subcommand_from run pull images inspect rm prune login logout exec ps explain spec gpus cdi completions man help" -f -a "prune" -d 'Remove images that were not used for long, and what nothing refers to'
complete -c gpurun -n "__fish_gpurun_using_subcommand help; and not __fish_seen_subcommand_from run pull images inspect rm prune login logout exec ps explain spec gpus cdi completions man help" -f -a "login" -d 'Keep a name and a password for a registry, once it has taken them'
complete -c gpurun -n "__fish_gpurun_using_subcommand help; and not __fish_seen_subcommand_from run pull images inspect rm prune login logout exec ps explain spec gpus cdi completions man help" -f -a "logout" -d 'Forget what is kept for a registry'
complete -c gpurun -n "__fish_gpurun_using_subcommand help; and not __fish_seen_subcommand_from run pull images inspect rm prune login logout exec ps explain spec gpus cdi completions man help" -f -a "exec" -d 'Run another command in the container of a run'
complete -c gpurun -n "__fish_gpurun_using_subcommand help; and not __fish_seen_subcommand_from run pull images inspect rm prune login logout exec ps explain spec gpus cdi completions man help" -f -a "ps" -d 'List your runs on this machine'
complete -c gpurun -n "__fish_gpurun_using_subcommand help; and not __fish_seen_subcommand_from run pull images inspect rm prune login logout exec ps explain spec gpus cdi completions man help" -f -a "explain" -d 'Print what `run` would do and why, and start nothing'
complete -c gpurun -n "__fish_gpurun_using_subcommand help; and not __fish_seen_subcommand_from run pull images inspect rm prune login logout exec ps explain spec gpus cdi completions man help" -f -a "spec" -d 'Print the OCI runtime spec of what `run` would do, and start nothing'
complete -c gpurun -n "__fish_gpurun_using_subcommand help; and not __fish_seen_subcommand_from run pull images inspect rm prune login logout exec ps explain spec gpus cdi completions man help" -f -a "gpus" -d 'List the GPUs, whether they can be used and why not, and the driver\'s files'
complete -c gpurun -n "__fish_gpurun_using_subcommand help; and not __fish_seen_subcommand_from run pull images inspect rm prune login logout exec ps explain spec gpus cdi completions man help" -f -a "cdi" -d 'Describe the GPUs to other container engines'
complete -c gpurun -n "__fish_gpurun_using_subcommand help; and not __fish_seen_subcommand_from run pull images inspect rm prune login logout exec ps explain spec gpus cdi completions man help" -f -a "completions" -d 'Print the completion script of a shell'
complete -c gpurun -n "__fish_gpurun_using_subcommand help; and not __fish_seen_subcommand_from run pull images inspect rm prune login logout exec ps explain spec gpus cdi completions man help" -f -a "man" -d 'Print the man page'
complete -c gpurun -n "__fish_gpurun_using_subcommand help; and not __fish_seen_subcommand_from run pull images inspect rm prune login logout exec ps explain spec gpus cdi completions man help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c gpurun -n "__fish_gpurun_using_subcommand help; and __fish_seen_subcommand_from cdi" -f -a "generate" -d 'Print a CDI spec of this machine\'s GPUs and driver, as JSON'
