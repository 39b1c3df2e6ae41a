"""Who this process is: its nkey on the bus, and its certificate for mutual TLS."""

from dataclasses import dataclass
from pathlib import Path

import grpc

from contracts.identities import BY_NAME


@dataclass(frozen=True)
class Credentials:
    """The files that the first start wrote for one service."""

    name: str
    state_dir: Path

    @property
    def nkey_seed_file(self) -> Path:
        """File with the seed of the service's nkey."""
        return self.state_dir / "credentials" / self.name / "nats.seed"

    def _read(self, name: str) -> bytes:
        return (self.state_dir / "credentials" / self.name / name).read_bytes()

    @property
    def _authority(self) -> bytes:
        return (self.state_dir / "credentials" / "ca.pem").read_bytes()

    def server(self) -> grpc.ServerCredentials:
        """Return credentials that demand a certificate of every caller."""
        pair = (self._read("key.pem"), self._read("cert.pem"))
        return grpc.ssl_server_credentials([pair], root_certificates=self._authority, require_client_auth=True)

    def channel(self) -> grpc.ChannelCredentials:
        """Return credentials that show this service's certificate."""
        return grpc.ssl_channel_credentials(self._authority, self._read("key.pem"), self._read("cert.pem"))


def dns_name(service: str) -> str:
    """Return the name that the certificate of `service` must carry."""
    return BY_NAME[service].dns_name
