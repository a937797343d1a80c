//! Rules → one BPF program, by seccompiler. Pure.
//!
//! seccompiler knows one answer a filter and kills what is of another architecture. So each answer is a filter of its own,
//! and where one does not answer the next is asked: they become one program, in which a first part deals with the other
//! architectures.

use std::collections::BTreeMap;

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompOperator as Operator, LinuxSyscall,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};
use syscalls::Sysno;

use crate::error::{Context, Error, Result};

/// The largest error number that the kernel returns (include/linux/err.h, `MAX_ERRNO`).
const MAX_ERRNO: u32 = 4095;

/// The longest program that the kernel takes (linux/bpf_common.h, `BPF_MAXINSNS`).
const MAX_PROGRAM: usize = 4096;

/// Offsets in what the program reads (linux/seccomp.h, `struct seccomp_data`).
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

/// Conditions of one system call: none for any call of it.
type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Takes out the names that this architecture has not, as runc does. Gives them.
pub(super) fn drop_unknown(filter: &mut LinuxSeccomp) -> Vec<String> {
    let mut unknown = Vec::new();
    let mut calls = filter.syscalls().clone().unwrap_or_default();
    for call in &mut calls {
        let (known, not) = call.names().iter().cloned().partition(|name| name.parse::<Sysno>().is_ok());
        call.set_names(known);
        unknown.extend::<Vec<String>>(not);
    }
    calls.retain(|call| !call.names().is_empty());
    filter.set_syscalls(Some(calls));
    unknown
}

/// The program of a filter; `foreign` is the answer to a program of another architecture.
pub(super) fn compile(filter: &LinuxSeccomp, foreign: Action) -> Result<BpfProgram> {
    let default = action(filter.default_action(), filter.default_errno_ret())?;
    let mut answers: Vec<(SeccompAction, Rules)> = Vec::new();
    for call in filter.syscalls().iter().flatten() {
        let answer = action(call.action(), call.errno_ret())?;
        if answer != default {
            let at = answers.iter().position(|(a, _)| *a == answer).unwrap_or_else(|| {
                answers.push((answer, Rules::new()));
                answers.len() - 1
            });
            add(&mut answers[at].1, call)?;
        }
    }
    let mut program = others(u32::from(action(foreign, None)?));
    for (answer, rules) in answers {
        program = chain(program, part(answer, rules)?);
    }
    program.push(statement(RETURN, default.into()));
    match program.len() > MAX_PROGRAM {
        true => Err(Error::new(format!("it has {} instructions, the kernel takes {MAX_PROGRAM}", program.len()))),
        false => Ok(program),
    }
}

fn action(action: Action, errno: Option<u32>) -> Result<SeccompAction> {
    let number = errno.unwrap_or(libc::EPERM.cast_unsigned());
    Ok(match action {
        Action::ScmpActKill | Action::ScmpActKillThread => SeccompAction::KillThread,
        Action::ScmpActKillProcess => SeccompAction::KillProcess,
        Action::ScmpActTrap => SeccompAction::Trap,
        Action::ScmpActErrno | Action::ScmpActTrace if number > MAX_ERRNO => {
            return Err(Error::new(format!("{number} is not an error number: the largest is {MAX_ERRNO}")));
        }
        Action::ScmpActErrno => SeccompAction::Errno(number),
        Action::ScmpActTrace => SeccompAction::Trace(number),
        Action::ScmpActLog => SeccompAction::Log,
        Action::ScmpActAllow => SeccompAction::Allow,
        Action::ScmpActNotify => {
            return Err(Error::new("`SCMP_ACT_NOTIFY` cannot be had: gpurun has no agent that answers system calls"));
        }
    })
}

/// A rule without conditions makes those with conditions superfluous.
fn add(rules: &mut Rules, call: &LinuxSyscall) -> Result<()> {
    for name in call.names() {
        let number = name.parse::<Sysno>().map_err(|()| Error::new(format!("`{name}` is no system call here")))?;
        let number = i64::from(number.id());
        match (alternatives(call.args().as_deref().unwrap_or_default())?, rules.get_mut(&number)) {
            (new, Some(old)) if !new.is_empty() && !old.is_empty() => old.extend(new),
            (new, None) => drop(rules.insert(number, new)),
            (_, Some(old)) => old.clear(),
        }
    }
    Ok(())
}

/// All conditions must hold, but where two are about one argument any of them will do (runc, `matchCall`).
fn alternatives(args: &[LinuxSeccompArg]) -> Result<Vec<SeccompRule>> {
    let conditions = args.iter().map(condition).collect::<Result<Vec<_>>>()?;
    let repeated = args.iter().enumerate().any(|(i, a)| args[..i].iter().any(|b| a.index() == b.index()));
    let groups = match (conditions.is_empty(), repeated) {
        (true, _) => Vec::new(),
        (false, true) => conditions.into_iter().map(|condition| vec![condition]).collect(),
        (false, false) => vec![conditions],
    };
    groups.into_iter().map(|group| SeccompRule::new(group).context(|| "make a rule")).collect()
}

fn condition(arg: &LinuxSeccompArg) -> Result<SeccompCondition> {
    let (operator, value) = match arg.op() {
        Operator::ScmpCmpNe => (SeccompCmpOp::Ne, arg.value()),
        Operator::ScmpCmpLt => (SeccompCmpOp::Lt, arg.value()),
        Operator::ScmpCmpLe => (SeccompCmpOp::Le, arg.value()),
        Operator::ScmpCmpEq => (SeccompCmpOp::Eq, arg.value()),
        Operator::ScmpCmpGe => (SeccompCmpOp::Ge, arg.value()),
        Operator::ScmpCmpGt => (SeccompCmpOp::Gt, arg.value()),
        Operator::ScmpCmpMaskedEq => (SeccompCmpOp::MaskedEq(arg.value()), arg.value_two().unwrap_or(0)),
    };
    let what = || format!("compare argument {}", arg.index());
    let index = u8::try_from(arg.index()).context(what)?;
    SeccompCondition::new(index, SeccompCmpArgLen::Qword, operator, value).context(what)
}

/// What seccompiler returns where a part has no answer. No rule is answered so: a profile's numbers end at [`MAX_ERRNO`].
const NO_ANSWER: SeccompAction = SeccompAction::Trace(0xffff);

/// The program of one answer.
fn part(answer: SeccompAction, rules: Rules) -> Result<BpfProgram> {
    let target = TargetArch::try_from(std::env::consts::ARCH).context(|| "choose the architecture")?;
    let filter = SeccompFilter::new(rules, NO_ANSWER, answer, target).context(|| "make a filter")?;
    BpfProgram::try_from(filter).context(|| "make a program")
}

/// The instructions used here (linux/bpf_common.h).
const RETURN: u16 = code(libc::BPF_RET | libc::BPF_K);
const JUMP: u16 = code(libc::BPF_JMP | libc::BPF_JA);
const LOAD: u16 = code(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS);
const IF_EQUAL: u16 = code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K);
const IF_AT_LEAST: u16 = code(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K);

#[allow(clippy::cast_possible_truncation)] // all are below 256
const fn code(instruction: u32) -> u16 {
    instruction as u16
}

fn statement(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
}

/// Goes on to what follows the part where it has no answer.
fn chain(mut program: BpfProgram, part: BpfProgram) -> BpfProgram {
    let no_answer = statement(RETURN, NO_ANSWER.into());
    let length = part.len();
    program.extend(part.into_iter().enumerate().map(|(at, instruction)| {
        let left = u32::try_from(length - at - 1).unwrap_or(u32::MAX); // a program has at most 4096
        if instruction == no_answer { statement(JUMP, left) } else { instruction }
    }));
    program
}

/// Answers what is of another architecture: one that the kernel names, or x32, which has the number's bit 30 set.
fn others(answer: u32) -> BpfProgram {
    const X32: u32 = 0x4000_0000;
    const NO_CALL: u32 = u32::MAX; // a tracer has skipped it
    let jump = |code, k, jt, jf| sock_filter { code, jt, jf, k };
    let mut program = vec![statement(LOAD, ARCHITECTURE), jump(IF_EQUAL, NATIVE, 1, 0), statement(RETURN, answer)];
    if cfg!(target_arch = "x86_64") {
        program.extend([
            statement(LOAD, NUMBER),
            jump(IF_EQUAL, NO_CALL, 2, 0),
            jump(IF_AT_LEAST, X32, 0, 1),
            statement(RETURN, answer),
        ]);
    }
    program
}

/// This architecture's number (linux/audit.h): the ELF machine, 64 bits, little-endian.
const NATIVE: u32 = 0xc000_0000
    | match () {
        #[cfg(target_arch = "x86_64")]
        () => 62,
        #[cfg(target_arch = "aarch64")]
        () => 183,
        #[cfg(target_arch = "riscv64")]
        () => 243,
    };

#[cfg(test)]
mod tests {
    use super::super::{Filter, Wanted, decide};
    use super::*;

    /// What the kernel would answer: the few instructions that such programs are made of.
    #[allow(clippy::cast_possible_truncation)] // half a word is what is loaded
    fn run(program: &[sock_filter], architecture: u32, number: u32, args: [u64; 6]) -> u32 {
        let (mut at, mut loaded) = (0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            let chosen = |condition: bool| usize::from(if condition { jt } else { jf });
            at += 1;
            match code {
                LOAD => {
                    loaded = match k {
                        NUMBER => number,
                        ARCHITECTURE => architecture,
                        _ => (args[(k as usize - 16) / 8] >> (k % 8 * 8)) as u32,
                    }
                }
                RETURN => return k,
                JUMP => at += k as usize,
                IF_EQUAL => at += chosen(loaded == k),
                IF_AT_LEAST => at += chosen(loaded >= k),
                0x25 => at += chosen(loaded > k),
                0x54 => loaded &= k,
                _ => panic!("instruction {code:#x}"),
            }
        }
    }

    fn call(filter: &Filter, name: &str, args: &[u64]) -> SeccompAction {
        let number = name.parse::<Sysno>().unwrap().id().cast_unsigned();
        let mut all = [0; 6];
        all[..args.len()].copy_from_slice(args);
        named(run(&filter.program, NATIVE, number, all))
    }

    fn named(answer: u32) -> SeccompAction {
        let all = [SeccompAction::Allow, SeccompAction::Log, SeccompAction::KillProcess, SeccompAction::KillThread];
        let errors = (0..=MAX_ERRNO).map(SeccompAction::Errno);
        all.into_iter().chain(errors).find(|action| u32::from(action.clone()) == answer).unwrap()
    }

    const PERM: SeccompAction = SeccompAction::Errno(1);
    const DONE: SeccompAction = SeccompAction::Errno(0);

    #[test]
    fn dockers_profile_says_what_dockers_says() {
        let filter = decide(&Wanted::Default, false, (6, 1), &[]).unwrap().unwrap();
        for (name, args, want) in [
            ("read", &[][..], SeccompAction::Allow),
            ("ptrace", &[], SeccompAction::Allow),
            ("mount", &[], PERM),
            ("bpf", &[], PERM),
            ("keyctl", &[], PERM),
            ("clone3", &[], SeccompAction::Errno(38)),
            ("clone", &[0x11], SeccompAction::Allow),
            ("clone", &[0x1000_0011], PERM),
            ("personality", &[8], SeccompAction::Allow),
            ("personality", &[9], PERM),
            ("personality", &[0xffff_ffff], SeccompAction::Allow),
            ("personality", &[0x1_0000_0008], PERM),
            ("socket", &[40], PERM),
            ("socket", &[1], SeccompAction::Allow),
        ] {
            assert_eq!(call(&filter, name, args), want, "{name} {args:x?}");
        }
        let foreign = SeccompAction::KillProcess;
        assert_eq!(named(run(&filter.program, 0x4000_0003, 3, [0; 6])), foreign, "i386");
        assert_eq!(named(run(&filter.program, NATIVE, 0x4000_0000, [0; 6])), foreign, "x32");
        assert_eq!(named(run(&filter.program, NATIVE, u32::MAX, [0; 6])), PERM, "a call that a tracer took away");
        assert!(filter.unknown.contains(&"waitpid".to_owned()), "{:?}", filter.unknown);
    }

    #[test]
    fn a_fake_root_changes_nothing_and_is_told_that_it_has() {
        for (wanted, other) in [(Wanted::None, SeccompAction::Allow), (Wanted::Default, PERM)] {
            let filter = decide(&wanted, true, (6, 1), &[]).unwrap().unwrap();
            for (name, args, want) in [
                ("fchownat", &[][..], DONE),
                ("setgroups", &[], DONE),
                ("mknodat", &[0, 0, 0o020_666], DONE),
                ("mknodat", &[0, 0, 0o060_666], DONE),
                ("mknodat", &[0, 0, 0o010_666], SeccompAction::Allow),
                ("setxattr", &[0, 0, 0, 20], DONE),
                ("setxattr", &[0, 0, 0, 21], SeccompAction::Allow),
                ("mount", &[], other.clone()),
            ] {
                assert_eq!(call(&filter, name, args), want, "{name} {args:?}");
            }
        }
        let filter = decide(&Wanted::None, true, (6, 1), &[]).unwrap().unwrap();
        assert_eq!(named(run(&filter.program, 0x4000_0003, 182, [0; 6])), SeccompAction::Allow, "no lie to i386");
    }

    #[test]
    fn rules_about_one_argument_are_alternatives_and_about_several_are_not() {
        let dir = std::env::temp_dir().join(format!("gpurun-seccomp-{}", std::process::id()));
        let rule = |args: &str| {
            let text = format!(
                r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{{"names": ["dup3"], "action": "SCMP_ACT_LOG", "args": [{args}]}}]}}"#
            );
            std::fs::write(&dir, text).unwrap();
            decide(&Wanted::File(dir.clone()), false, (6, 1), &[]).unwrap().unwrap()
        };
        let arg = |index: u8, op: &str, value: u64| {
            format!(r#"{{"index": {index}, "value": {value}, "op": "SCMP_CMP_{op}"}}"#)
        };
        let either = rule(&format!("{}, {}", arg(0, "EQ", 1), arg(0, "GT", 1 << 33)));
        let both = rule(&format!("{}, {}", arg(0, "EQ", 1), arg(1, "LE", 2)));
        std::fs::remove_file(&dir).unwrap();
        let logged = |filter, args: &[u64]| call(filter, "dup3", args) == SeccompAction::Log;
        assert!(logged(&either, &[1]) && logged(&either, &[1 << 34]) && !logged(&either, &[2]));
        assert!(logged(&both, &[1, 2]) && !logged(&both, &[1, 3]) && !logged(&both, &[0, 2]));
    }

    #[test]
    fn what_cannot_be_compiled_is_refused() {
        for rule in [
            r#""action": "SCMP_ACT_NOTIFY""#,
            r#""action": "SCMP_ACT_ERRNO", "errnoRet": 5000"#,
            r#""action": "SCMP_ACT_LOG", "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]"#,
        ] {
            let text = format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{{"names": ["read"], {rule}}}]}}"#);
            let filter = super::super::Profile::parse(text.as_bytes()).and_then(|p| p.resolve((6, 1), &[])).unwrap();
            assert!(compile(&filter, Action::ScmpActAllow).is_err(), "{rule}");
        }
    }
}
