//! The examples of RFC 7515 (JWS), RFC 7519 (JWT) and RFC 8037 (EdDSA).

use super::super::jwks::{KeySet, Purpose, Signature};
use super::super::jws::Jws;
use super::super::{claims, crypto};
use super::signer::{RSA_N, unbase64};
use super::*;

const PAYLOAD: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";

// RFC 7515, appendix A.2.
const RS256: &str = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
// RFC 7515, appendix A.3.
const ES256: &str =
    "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
const ES256_X: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
const ES256_Y: &str = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";

fn keys() -> KeySet {
    let keys = json!({"keys": [
        {"kty": "RSA", "n": RSA_N, "e": "AQAB"},
        {"kty": "EC", "crv": "P-256", "x": ES256_X, "y": ES256_Y},
    ]});
    KeySet::parse(keys.to_string().as_bytes(), Purpose::Issuer).unwrap()
}

fn time(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

#[test]
fn the_signed_examples_are_valid() {
    crypto::install();
    // {"alg":"RS256"} and {"alg":"ES256"}
    for (header, signature) in [
        ("eyJhbGciOiJSUzI1NiJ9", RS256),
        ("eyJhbGciOiJFUzI1NiJ9", ES256),
    ] {
        let text = format!("{header}.{PAYLOAD}.{signature}");
        let token = Jws::parse(&text).unwrap();
        assert_eq!(keys().verify(&token), Signature::Valid, "{header}");
        assert_eq!(token.issuer(), "joe");
        assert_eq!(token.payload["http://example.com/is_root"], json!(true));
        // `exp` is 1300819380; what holds to the second holds with the skew on either side.
        let skew = Duration::from_secs(60);
        let check = |at| claims::check_time(&token.payload, time(at), skew);
        assert_eq!(check(1_300_819_380 + 60), Ok(()));
        assert_eq!(check(1_300_819_380 + 61), Err(TokenError::Expired));
    }
}

#[test]
fn one_bit_makes_them_invalid() {
    crypto::install();
    for (header, signature) in [
        ("eyJhbGciOiJSUzI1NiJ9", RS256),
        ("eyJhbGciOiJFUzI1NiJ9", ES256),
    ] {
        let mut bytes = unbase64(signature);
        for at in [0, bytes.len() / 2, bytes.len() - 1] {
            bytes[at] ^= 1;
            let text = format!("{header}.{PAYLOAD}.{}", super::signer::base64(&bytes));
            assert_ne!(keys().verify(&Jws::parse(&text).unwrap()), Signature::Valid);
            bytes[at] ^= 1;
        }
        // RFC 7519's point of the same text with another claim.
        let other = super::signer::base64(r#"{"iss":"joe","exp":4000000000}"#);
        let text = format!("{header}.{other}.{signature}");
        assert_ne!(keys().verify(&Jws::parse(&text).unwrap()), Signature::Valid);
    }
}

#[test]
fn ed25519_is_that_of_rfc_8037() {
    crypto::install();
    // Appendix A.4; its payload is no JSON, so the signature alone is looked at.
    let x = unbase64("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
    let key = jsonwebtoken::DecodingKey::from_ed_der(&x);
    let signature =
        "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    let valid = |message: &[u8]| {
        let algorithm = jsonwebtoken::Algorithm::EdDSA;
        jsonwebtoken::crypto::verify(signature, message, &key, algorithm).unwrap()
    };
    assert!(valid(
        b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc"
    ));
    assert!(!valid(
        b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmg"
    ));
}

#[test]
fn what_the_rfcs_sign_otherwise_is_refused_by_name() {
    for (text, expected) in [
        // RFC 7515 A.1: HMAC.
        (
            format!(
                "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{PAYLOAD}.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
            ),
            TokenError::Symmetric,
        ),
        // RFC 7515 A.4: ES512.
        (
            "eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA.AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT2SI-KGDKB34XO0aw_7XdtAG8GaSwFKdCAPZgoXD2YBJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn".to_owned(),
            TokenError::Algorithm("ES512".to_owned()),
        ),
        // RFC 7515 A.5 and RFC 7519 6.1: not signed.
        (format!("eyJhbGciOiJub25lIn0.{PAYLOAD}."), TokenError::Unsigned),
        // RFC 7515 appendix E: `crit`.
        (
            "eyJhbGciOiJub25lIiwNCiAiY3JpdCI6WyJodHRwOi8vZXhhbXBsZS5jb20vVU5ERUZJTkVEIl0sDQogImh0dHA6Ly9leGFtcGxlLmNvbS9VTkRFRklORUQiOnRydWUNCn0.RkFJTA.".to_owned(),
            TokenError::Critical("crit"),
        ),
        // RFC 7519 A.1: encrypted, five parts.
        ("eyJhbGciOiJSU0ExXzUiLCJlbmMiOiJBMTI4Q0JDLUhTMjU2In0.a.b.c.d".to_owned(), TokenError::Malformed),
        // RFC 7515 A.6 and A.7: JSON serialization.
        (r#"{"payload":"e30","signatures":[]}"#.to_owned(), TokenError::Malformed),
    ] {
        assert_eq!(Jws::parse(&text), Err(expected), "{text}");
    }
}
