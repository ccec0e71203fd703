use super::run::Folder;

#[test]
fn replays_the_shipped_requests_and_keeps_what_is_edited() {
    let folder = Folder::new(&[]);
    let arguments = ["dev", "--once", "--listen", "127.0.0.1:0"];
    let first = folder.run(&arguments);
    assert_eq!((first.code, first.stderr.as_str()), (0, ""), "{first:?}");
    let rows: Vec<Vec<&str>> = first
        .stdout
        .lines()
        .map(|line| line.split_whitespace().collect())
        .filter(|row: &Vec<&str>| row.first().is_some_and(|cell| cell.parse::<u64>().is_ok()))
        .collect();
    let verdicts: Vec<(&str, &str, &str)> =
        rows.iter().map(|row| (row[1], row[2], row[3])).collect();
    assert_eq!(
        verdicts,
        [
            ("ALLOW", "allowed_by", "ingress/readers#rule[0]"),
            ("DENY", "no_allow_matched", "-"),
            ("DENY", "denied_by", "istio-system/no-admin#rule[0]"),
            ("ALLOW", "allowed_by", "shop/catalog-readers#rule[0]"),
            ("ALLOW", "allowed_by", "shop/catalog-readers#rule[0]"),
            ("DENY", "no_allow_matched", "-"),
            ("DENY", "mtls_required", "shop/default"),
            ("ALLOW", "allowed_by", "shop/order-buyers#rule[0]"),
            ("DENY", "no_allow_matched", "-"),
            ("ALLOW", "allowed_by", "shop/database-clients#rule[0]"),
            ("DENY", "no_allow_matched", "-"),
            ("DENY", "unknown_destination", "-"),
        ]
    );
    assert!(
        first
            .stdout
            .contains("        on trial: would be DENY by shop/no-old-clients#rule[0]\n")
    );

    let policies = folder.path().join("portcullis-dev/bookshop/policies.yaml");
    let edited = std::fs::read_to_string(&policies).unwrap() + "---\nkind: [\n";
    std::fs::write(&policies, &edited).unwrap();
    let second = folder.run(&arguments);
    assert_eq!(second.code, 2, "{second:?}");
    assert!(
        second
            .stdout
            .contains("every request is denied until they are right"),
        "{second:?}"
    );
    assert!(second.stdout.contains("no_snapshot"), "{second:?}");
    assert_eq!(std::fs::read_to_string(&policies).unwrap(), edited);
}

#[test]
fn without_an_envoy_it_says_how_to_get_one() {
    let folder = Folder::new(&[]);
    let mut command = folder.command(&["dev", "--envoy", "--once", "--listen", "127.0.0.1:0"]);
    command.env("PATH", folder.path());
    let outcome = super::run::finish(command, b"");
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(
        outcome
            .stderr
            .starts_with("error: no Envoy found: install Envoy ("),
        "{outcome:?}"
    );
    assert!(
        !folder.path().join("portcullis-dev").exists(),
        "nothing was written"
    );
}
