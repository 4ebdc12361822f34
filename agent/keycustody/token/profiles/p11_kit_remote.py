"""p11-kit remote: another module, SoftHSM here, behind p11-kit's RPC.

Run on p11-kit 0.24.1 (Debian 12): `p11-kit server` with SoftHSM 2.6.1 behind it, p11-kit-client.so
in front. P-256, P-384, RSA 2048 to 4096 signed and verified (PSS with SHA-256, SHA-384, SHA-512,
PKCS #1 v1.5); OAEP with SHA-1, HMAC, and private data objects with all their attributes work.

The RPC passes only the mechanisms whose parameters it knows: not EDDSA, ECDH1_DERIVE, AES_KEY_WRAP
or AES_ECB_ENCRYPT_DATA. It passes CKA_ALLOWED_MECHANISMS when a key is made, and SoftHSM enforces
it; but asking for a list's length puts client and server out of step: a list of two is
`CKR_DEVICE_ERROR`, a list of one is read by luck. So it is set, and never read.
"""

from keycustody.algorithms import Scheme
from keycustody.token.profiles import Profile

PROFILE = Profile(
    name="p11_kit_remote",
    description="p11-kit 0.24 remote with SoftHSM behind it: a token that can be unplugged",
    keys=frozenset({"EC_P256", "EC_P384", "RSA_2048", "RSA_3072", "RSA_4096"}),
    schemes={
        Scheme.ECDSA: "ECDSA",
        Scheme.RSA_PSS: "RSA_PKCS_PSS",
        Scheme.RSA_PKCS1: "RSA_PKCS",
    },
    oaep="RSA_PKCS_OAEP",
    decryptions=frozenset({"RSA_OAEP_SHA_1"}),
    mac="SHA256_HMAC",
    unreadable_attributes=frozenset({"ALLOWED_MECHANISMS"}),
    weaker=(
        (
            "The mechanisms that a key is limited to are set and cannot be read back, so the agent "
            "does not check them."
        ),
        (
            "Whoever can open the server's socket reaches the token; the PIN and what is decrypted "
            "pass over it in clear."
        ),
        "What the module behind it does weaker is weaker here too.",
    ),
)
