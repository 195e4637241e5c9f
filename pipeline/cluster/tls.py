"""TLS keys for one cluster: without its key nobody can connect to its scheduler, as a client or as a worker.

An open Dask scheduler runs the code of everybody who reaches its port, under the user who started it. A loopback
address is reached by all users of the machine.
"""

import datetime as dt
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAY = dt.timedelta(days=1)


def write_keys(folder: Path) -> dict[str, Any]:
    """Writes a key and its self-signed certificate for one cluster.

    Scheduler, workers and client use the same certificate and trust no other.

    Args:
        folder: receives `key.pem` and `cert.pem`, which only their owner can read.

    Returns:
        Dask's configuration for all three. It contains the paths of the files and no secret.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "landcover-job")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # The clocks of the nodes differ a little, and no job takes a month.
        .not_valid_before(now - _DAY)
        .not_valid_after(now + 30 * _DAY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    own: dict[str, str] = {}
    for part, content in (("key", secret), ("cert", certificate.public_bytes(serialization.Encoding.PEM))):
        path = folder / f"{part}.pem"
        path.touch(mode=0o600, exist_ok=False)
        path.write_bytes(content)
        own[part] = str(path)
    return {
        "distributed.comm.require-encryption": True,
        "distributed.comm.tls.ca-file": own["cert"],
        **{f"distributed.comm.tls.{role}": own for role in ("scheduler", "worker", "client")},
    }
