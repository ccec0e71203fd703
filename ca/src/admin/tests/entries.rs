//! Registration entries over the admin API.

use super::*;

#[tokio::test]
async fn entries_are_created_listed_in_pages_updated_and_deleted() {
    let running = Running::start().await;
    let batch = (0..5)
        .map(|n| entry(&format!("/w{n}"), &format!("uid:{n}")))
        .collect();
    let created = create(&running, batch).await;
    assert!(
        created
            .iter()
            .all(|(code, entry)| *code == Code::Ok && entry.is_some())
    );
    let again = create(&running, vec![entry("/w0", "uid:0")]).await;
    assert_eq!(again[0].0, Code::AlreadyExists);
    assert_eq!(
        again[0].1, created[0].1,
        "the one that is there comes along"
    );
    let (mut token, mut seen) = (String::new(), Vec::new());
    loop {
        let request = entry_api::ListEntriesRequest {
            page_size: 2,
            page_token: token,
            ..Default::default()
        };
        let page = running
            .entries()
            .list_entries(request)
            .await
            .unwrap()
            .into_inner();
        assert!(page.entries.len() <= 2);
        seen.extend(page.entries.into_iter().map(|entry| entry.id));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(seen.len(), 5);
    let first = created[0].1.clone().unwrap();
    let update = types::Entry {
        id: first.id.clone(),
        hint: "internal".to_owned(),
        x509_svid_ttl: 60,
        ..Default::default()
    };
    let request = entry_api::BatchUpdateEntryRequest {
        entries: vec![update],
        input_mask: Some(types::EntryMask {
            hint: true,
            ..Default::default()
        }),
        output_mask: None,
    };
    let answer = running
        .entries()
        .batch_update_entry(request)
        .await
        .unwrap()
        .into_inner();
    let updated = answer.results[0].entry.clone().unwrap();
    assert_eq!(
        (updated.hint.as_str(), updated.x509_svid_ttl),
        ("internal", 0),
        "the mask alone"
    );
    assert_eq!(updated.revision_number, 1);
    let request = entry_api::BatchDeleteEntryRequest {
        ids: vec![first.id.clone(), "missing".to_owned()],
    };
    let answer = running
        .entries()
        .batch_delete_entry(request)
        .await
        .unwrap()
        .into_inner();
    let codes: Vec<Code> = answer
        .results
        .iter()
        .map(|r| code(r.status.as_ref()))
        .collect();
    assert_eq!(codes, [Code::Ok, Code::NotFound]);
    let request = entry_api::GetEntryRequest {
        id: first.id,
        output_mask: None,
    };
    assert_eq!(
        running
            .entries()
            .get_entry(request)
            .await
            .unwrap_err()
            .code(),
        Code::NotFound
    );
}

#[tokio::test]
async fn bad_entries_have_the_standards_status_and_leave_nothing() {
    let running = Running::start().await;
    let bad: Vec<types::Entry> = vec![
        types::Entry {
            spiffe_id: None,
            ..entry("/x", "uid:1")
        },
        types::Entry {
            x509_svid_ttl: -1,
            ..entry("/x", "uid:1")
        },
        types::Entry {
            jwt_svid_ttl: -1,
            ..entry("/x", "uid:1")
        },
        types::Entry {
            expires_at: -1,
            ..entry("/x", "uid:1")
        },
        types::Entry {
            federates_with: vec!["Other.org".to_owned()],
            ..entry("/x", "uid:1")
        },
        types::Entry {
            selectors: vec![selector("")],
            ..entry("/x", "uid:1")
        },
        entry(&format!("/{}", "a".repeat(2048)), "uid:1"),
        entry("/a//b", "uid:1"),
        types::Entry {
            spiffe_id: Some(types::Spiffeid {
                trust_domain: "EXAMPLE.org".to_owned(),
                path: "/x".to_owned(),
            }),
            ..entry("/x", "uid:1")
        },
    ];
    for (code, entry) in create(&running, bad).await {
        assert_eq!(code, Code::InvalidArgument);
        assert!(entry.is_none());
    }
    let count = running
        .entries()
        .count_entries(entry_api::CountEntriesRequest::default())
        .await;
    assert_eq!(count.unwrap().into_inner().count, 0);
}

#[tokio::test]
async fn filters_compare_sets_as_their_names_say() {
    use types::selector_match::MatchBehavior;
    let running = Running::start().await;
    let mut both = entry("/both", "uid:1");
    both.selectors.push(selector("gid:1"));
    create(
        &running,
        vec![entry("/one", "uid:1"), both, entry("/other", "uid:2")],
    )
    .await;
    let cases = [
        (MatchBehavior::MatchExact, vec!["uid:1"], 1),
        (MatchBehavior::MatchSubset, vec!["uid:1", "gid:1"], 2),
        (MatchBehavior::MatchSuperset, vec!["uid:1"], 2),
        (MatchBehavior::MatchAny, vec!["gid:1", "uid:2"], 2),
    ];
    for (behavior, selectors, expected) in cases {
        let filter = entry_api::count_entries_request::Filter {
            by_selectors: Some(types::SelectorMatch {
                selectors: selectors.iter().map(|value| selector(value)).collect(),
                r#match: behavior.into(),
            }),
            ..Default::default()
        };
        let request = entry_api::CountEntriesRequest {
            filter: Some(filter),
        };
        let count = running
            .entries()
            .count_entries(request)
            .await
            .unwrap()
            .into_inner()
            .count;
        assert_eq!(count, expected, "{behavior:?} {selectors:?}");
    }
}
