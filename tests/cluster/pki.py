"""The cluster's certificates, keys and tokens, made anew for every cluster by openssl. Nothing here outlives it."""

from __future__ import annotations

import base64
import secrets

from cluster.address import API_SERVICE_IP, DOMAIN, NODE, NODE_IP
from cluster.config import inside_server, kubeconfig
from cluster.paths import CONFIG, PKI
from cluster.process import run

DAYS = "3650"  # a test cluster left running must not die of old age
CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")  # 20 times faster to make than RSA
SERVER_NAMES = (
    "IP:127.0.0.1",
    f"IP:{NODE_IP}",
    f"IP:{API_SERVICE_IP}",
    "DNS:localhost",
    "DNS:kubernetes",
    "DNS:kubernetes.default",
    "DNS:kubernetes.default.svc",
    f"DNS:kubernetes.default.svc.{DOMAIN}",
)
# file name → (subject, alternative names)
CERTIFICATES = {
    "apiserver": ("/CN=kube-apiserver", SERVER_NAMES),
    "kubelet": (f"/O=system:nodes/CN=system:node:{NODE}", (f"DNS:{NODE}", f"IP:{NODE_IP}")),
    "kubelet-client": ("/O=system:masters/CN=kube-apiserver-kubelet-client", ()),
    "front-proxy": ("/CN=front-proxy-client", ()),
}
# user → group; each gets a token
USERS = {
    "admin": "system:masters",
    "kube-controller-manager": "",
    "kube-scheduler": "",
    "kube-proxy": "",
    "kubelet": "system:nodes",
}


def make_pki() -> dict[str, str]:
    """Write certificates, tokens and the node's kubeconfigs; return each user's token."""
    PKI.mkdir(parents=True, exist_ok=True)
    PKI.chmod(0o700)
    _openssl("req", "-x509", *CURVE, "-keyout", PKI / "ca.key", "-out", PKI / "ca.crt", "-subj", "/CN=minisgl-ca",
             "-days", DAYS)  # fmt: skip
    for name, (subject, names) in CERTIFICATES.items():
        _sign(name, subject, names)
    _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", PKI / "sa.key")
    _openssl("ec", "-in", PKI / "sa.key", "-pubout", "-out", PKI / "sa.pub")
    tokens = {user: secrets.token_hex(16) for user in USERS}
    rows = [f'{tokens[user]},{_account(user)},{user},"{group}"' for user, group in USERS.items()]
    (PKI / "tokens.csv").write_text("\n".join(rows) + "\n")
    for user, token in tokens.items():
        if user != "admin":
            (CONFIG / f"{user}.kubeconfig").write_text(kubeconfig(inside_server(), authority(), token, user))
    return tokens


def authority() -> str:
    """The CA certificate in base64, as kubeconfigs hold it."""
    return base64.b64encode((PKI / "ca.crt").read_bytes()).decode()


def _account(user: str) -> str:
    return {"admin": "admin", "kubelet": f"system:node:{NODE}"}.get(user, f"system:{user}")


def _sign(name: str, subject: str, names: tuple[str, ...]) -> None:
    extensions = PKI / f"{name}.ext"
    lines = ["keyUsage=critical,digitalSignature", "extendedKeyUsage=serverAuth,clientAuth"]
    extensions.write_text("\n".join([*lines, f"subjectAltName={','.join(names)}"] if names else lines) + "\n")
    _openssl("req", "-new", *CURVE, "-keyout", PKI / f"{name}.key", "-out", PKI / f"{name}.csr", "-subj", subject)
    _openssl("x509", "-req", "-in", PKI / f"{name}.csr", "-CA", PKI / "ca.crt", "-CAkey", PKI / "ca.key",
             "-CAcreateserial", "-out", PKI / f"{name}.crt", "-days", DAYS, "-extfile", extensions)  # fmt: skip


def _openssl(*arguments: object) -> None:
    run(["openssl", *map(str, arguments)], log="pki", timeout=30, next_step="python -m cluster down, then up")
