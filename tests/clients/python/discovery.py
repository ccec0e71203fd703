"""An OpenID Connect client that was given an issuer and nothing else: finds its keys and verifies a token with them."""

import json
import ssl
import sys
import urllib.request

import jwt

issuer, address, authorities, audience = sys.argv[1:5]
token = sys.stdin.read().strip()
context = ssl.create_default_context(cafile=authorities)


def get(url):
    # The name in the issuer is not in any DNS: its connection goes to the listener, its certificate is the name's.
    with urllib.request.urlopen(url.replace(issuer, address), context=context, timeout=10) as answer:
        return json.load(answer)


configuration = get(f"{issuer}/.well-known/openid-configuration")
assert configuration["issuer"] == issuer, configuration
header = jwt.get_unverified_header(token)
assert header["alg"] in configuration["id_token_signing_alg_values_supported"], configuration
keys = jwt.PyJWKSet.from_dict(get(configuration["jwks_uri"]))
claims = jwt.decode(token, keys[header["kid"]].key, algorithms=[header["alg"]], audience=audience, issuer=issuer)
print(json.dumps(claims))
