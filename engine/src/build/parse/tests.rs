use super::*;
use proptest::prelude::*;

fn refused(text: &str) -> String {
    dockerfile(text).unwrap_err().to_string()
}

fn steps(text: &str) -> Vec<Instruction> {
    let file = dockerfile(&format!("FROM a\n{text}")).unwrap();
    file.stages[0].steps.iter().map(|step| step.does.clone()).collect()
}

#[test]
fn stages_have_bases_names_and_steps() {
    let text = "ARG v=1\nFROM --platform=linux/amd64 a:$v AS Build\nRUN x\nfrom build\nCMD y";
    let file = dockerfile(text).unwrap();
    assert_eq!(file.globals.len(), 1);
    let [first, second] = file.stages.as_slice() else { panic!("{file:?}") };
    assert_eq!((first.base.as_str(), first.name.as_str()), ("a:$v", "build"));
    assert_eq!(first.platform, "linux/amd64");
    assert_eq!(second.base, "build");
    assert_eq!(second.steps[0].line, 5);
}

#[test]
fn commands_are_json_or_a_line_for_the_shell() {
    let found = steps("RUN [\"a\",\"b\"]\nRUN [ a\nCMD\nENTRYPOINT exec x");
    let Instruction::Run(run) = &found[0] else { panic!() };
    assert_eq!(run.command, Command { words: vec!["a".into(), "b".into()], shell: false });
    let Instruction::Run(run) = &found[1] else { panic!() };
    assert!(run.command.shell);
    let Instruction::Cmd(cmd) = &found[2] else { panic!() };
    assert!(cmd.words.is_empty());
}

#[test]
fn copy_takes_flags_paths_and_documents() {
    let found = steps("COPY --from=b --chown=1:2 --link a b/ /c/\nCOPY <<A x /d/\nhi\nA");
    let Instruction::Copy(copy) = &found[0] else { panic!() };
    assert_eq!(copy.from.as_deref(), Some("b"));
    assert_eq!((copy.sources.len(), copy.to.as_str(), copy.link), (2, "/c/", true));
    let Instruction::Copy(copy) = &found[1] else { panic!() };
    assert!(matches!(&copy.sources[0], Source::Heredoc(it) if it.text == "hi\n"));
    assert!(matches!(&copy.sources[1], Source::Path(it) if it == "x"));
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    for (text, expected) in [
        ("FROM", "dockerfile parse error on line 1: FROM requires either one or three arguments"),
        (
            "\nFROM a b c",
            "dockerfile parse error on line 2: FROM requires either one or three arguments",
        ),
        ("RUN a", "dockerfile parse error on line 1: no build stage in current context"),
        (
            "FROM a\nFOO b",
            "dockerfile parse error on line 2: unknown instruction: FOO (did you mean FROM?)",
        ),
        (
            "FROM a\nRUNN b",
            "dockerfile parse error on line 2: unknown instruction: RUNN (did you mean RUN?)",
        ),
        (
            "FROM a\nCOPY b",
            "dockerfile parse error on line 2: COPY requires at least two arguments, but only one was provided. Destination could not be determined",
        ),
        ("FROM a\nENV b", "dockerfile parse error on line 2: ENV must have two arguments"),
        (
            "FROM a\nWORKDIR",
            "dockerfile parse error on line 2: WORKDIR requires exactly one argument",
        ),
        (
            "FROM a\nCOPY --form=b c d",
            "dockerfile parse error on line 2: unknown flag: --form (did you mean from?)",
        ),
        (
            "FROM a\nSHELL sh",
            "dockerfile parse error on line 2: SHELL requires the arguments to be in JSON form",
        ),
        (
            "FROM a\nONBUILD FROM b",
            "dockerfile parse error on line 2: FROM isn't allowed as an ONBUILD trigger",
        ),
        (
            "FROM a\nHEALTHCHECK PING",
            "dockerfile parse error on line 2: Unknown type \"PING\" in HEALTHCHECK (try CMD)",
        ),
        (
            "FROM a\nHEALTHCHECK --interval=1x CMD b",
            "dockerfile parse error on line 2: time: invalid duration \"1x\"",
        ),
        (
            "FROM a\nCMD [1]",
            "dockerfile parse error on line 2: when using JSON array syntax, arrays must be comprised of strings only",
        ),
    ] {
        assert_eq!(refused(text), expected);
    }
    assert!(refused("FROM a AS 1b").contains("invalid name for build stage: \"1b\""));
    assert!(refused("FROM a\nRUN --mount=type=cache b").contains("requires BuildKit"));
}

#[test]
fn a_healthcheck_is_read_with_its_options() {
    let found = steps("HEALTHCHECK --interval=1m30s --retries=2 CMD true\nHEALTHCHECK NONE");
    let Instruction::Healthcheck(check) = &found[0] else { panic!() };
    assert_eq!((check.interval, check.retries), (90_000_000_000, 2));
    assert_eq!(check.test, ["CMD-SHELL", "true"]);
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "(FROM|RUN|COPY|ENV|ARG|LABEL|HEALTHCHECK|ONBUILD|VOLUME)?[ a-z=\\[\\]\"'\\\\$<\n-]{0,80}") {
        drop(dockerfile(&format!("FROM a\n{text}")));
        drop(dockerfile(&text));
    }
}
