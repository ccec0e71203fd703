//! SVIDs that operators and downstream authorities ask for.

use super::*;

fn csr(uris: &[&str], dns: &[&str]) -> Vec<u8> {
    let mut params = CertificateParams::default();
    let names = uris
        .iter()
        .map(|uri| SanType::URI((*uri).try_into().unwrap()));
    params.subject_alt_names = names
        .chain(
            dns.iter()
                .map(|name| SanType::DnsName((*name).try_into().unwrap())),
        )
        .collect();
    let key = KeyPair::generate().unwrap();
    params.serialize_request(&key).unwrap().der().to_vec()
}

#[tokio::test]
async fn operators_mint_svids_of_any_workload_and_of_nobody_else() {
    let running = Running::start().await;
    let mint = |csr: Vec<u8>, ttl| {
        let request = svid_api::MintX509svidRequest {
            csr: csr.into(),
            ttl,
        };
        let mut svids = running.svids();
        async move { svids.mint_x509svid(request).await }
    };
    let minted = mint(csr(&["spiffe://example.org/x"], &["x.org"]), 60)
        .await
        .unwrap();
    let svid = minted.into_inner().svid.unwrap();
    assert_eq!(
        conform::any_leaf(&svid.cert_chain[0]).unwrap().as_str(),
        "spiffe://example.org/x"
    );
    for (uris, dns) in [
        (&[][..], &[][..]),
        (&["spiffe://example.org/x", "spiffe://example.org/y"], &[]),
        (&["spiffe://other.org/x"], &[]),
        (&["spiffe://example.org"], &[]),
        (&["spiffe://example.org/spire/server"], &[]),
        (&["https://example.org/x"], &[]),
        (&["spiffe://example.org/x"], &["-bad-"]),
    ] {
        let status = mint(csr(uris, dns), 60).await.unwrap_err();
        assert_eq!(
            status.code(),
            Code::InvalidArgument,
            "{uris:?} {dns:?}: {status}"
        );
    }
    for (bytes, ttl) in [
        (Vec::new(), 1),
        (vec![0; 40_000], 1),
        (csr(&["spiffe://example.org/x"], &[]), -1),
    ] {
        assert_eq!(
            mint(bytes, ttl).await.unwrap_err().code(),
            Code::InvalidArgument
        );
    }
    let request = svid_api::MintJwtsvidRequest {
        id: id("/x"),
        audience: vec!["a".to_owned()],
        ttl: 60,
    };
    let token = running
        .svids()
        .mint_jwtsvid(request.clone())
        .await
        .unwrap()
        .into_inner()
        .svid
        .unwrap();
    assert_eq!(token.expires_at - token.issued_at, 60);
    let nobody = svid_api::MintJwtsvidRequest {
        audience: Vec::new(),
        ..request
    };
    let status = running.svids().mint_jwtsvid(nobody).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_batch_of_svids_takes_everything_but_the_key_from_the_entries() {
    let running = Running::start().await;
    let created = create(&running, vec![entry("/web", "uid:1")]).await;
    let entry_id = created[0].1.clone().unwrap().id;
    let params = |entry_id: &str| svid_api::NewX509svidParams {
        entry_id: entry_id.to_owned(),
        csr: csr(&["spiffe://example.org/admin"], &["evil.org"]).into(),
    };
    let request = svid_api::BatchNewX509svidRequest {
        params: vec![params(&entry_id), params("missing")],
    };
    let results = running
        .svids()
        .batch_new_x509svid(request)
        .await
        .unwrap()
        .into_inner()
        .results;
    let svid = results[0].svid.clone().unwrap();
    assert_eq!(
        conform::any_leaf(&svid.cert_chain[0]).unwrap().path(),
        "/web"
    );
    assert_eq!(code(results[1].status.as_ref()), Code::NotFound);
    let request = svid_api::NewJwtsvidRequest {
        entry_id,
        audience: vec!["a".to_owned()],
    };
    let svid = running
        .svids()
        .new_jwtsvid(request)
        .await
        .unwrap()
        .into_inner()
        .svid
        .unwrap();
    assert_eq!(svid.id, id("/web"));
}
