use super::run::Folder;

#[test]
fn wrong_usage_is_1_and_help_0() {
    let folder = Folder::new(&[]);
    for arguments in [
        &[][..],
        &["polcy"],
        &["policy"],
        &["policy", "check"],
        &["policy", "decide", "--target", "sidecat"],
        &["policy", "check", "x", "--log-level", "a=b=c"],
        &["dev", "--listen", "unix:x"],
        &["dev", "--envoy-listen", "127.0.0.1:1"],
    ] {
        let outcome = folder.run(arguments);
        assert_eq!(outcome.code, 1, "{arguments:?}: {outcome:?}");
        assert_eq!(outcome.stdout, "", "{arguments:?}");
        assert!(!outcome.stderr.is_empty(), "{arguments:?}");
    }
    let typo = folder.run(&["policy", "chek", "x"]);
    assert!(typo.stderr.contains("'check'"), "{typo:?}");
    for arguments in [&["--help"][..], &["policy", "decide", "-h"], &["--version"]] {
        assert_eq!(folder.run(arguments).code, 0);
    }
}

#[test]
fn every_command_has_help_with_an_example() {
    fn walk(command: &clap::Command, path: &str, seen: &mut usize) {
        let path = format!("{path} {}", command.get_name());
        let help = command.get_after_help().map(ToString::to_string);
        let help = help.unwrap_or_default();
        assert!(help.contains("Example:\n  "), "{path}: no example");
        assert!(help.contains("portcullis"), "{path}: no example");
        assert!(command.get_about().is_some(), "{path}: no description");
        for argument in command.get_arguments() {
            assert!(
                argument.get_help().is_some(),
                "{path}: {} is not described",
                argument.get_id()
            );
        }
        *seen += 1;
        for inner in command.get_subcommands() {
            walk(inner, &path, seen);
        }
    }
    let mut seen = 0;
    walk(&portcullis::command(), "", &mut seen);
    assert!(seen > 12, "the walk is whole: {seen}");
}

#[test]
fn completions_are_printed_for_every_shell() {
    let folder = Folder::new(&[]);
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let outcome = folder.run(&["completions", shell]);
        assert_eq!(outcome.code, 0);
        assert!(outcome.stdout.contains("explain-code"), "{shell}");
    }
}
