"""Filter: when a certificate ends, as node_exporter reads it from a file."""

from __future__ import annotations

from collections.abc import Callable

from cryptography import x509


def certificate_metric(pem: str) -> str:
    """Return the metric that tells when the first certificate of a PEM text ends; other text is passed over."""
    end = x509.load_pem_x509_certificates(pem.encode())[0].not_valid_after_utc
    name = "gateway_certificate_not_after_seconds"
    return (
        f"# HELP {name} When the gateway's certificate ends, in seconds since 1970.\n"
        f"# TYPE {name} gauge\n"
        f"{name} {int(end.timestamp())}\n"
    )


class FilterModule:
    """Makes the filter known to Ansible."""

    def filters(self) -> dict[str, Callable[..., str]]:
        """Return the filter by its name."""
        return {"certificate_metric": certificate_metric}
