"""Filters: a data source for each tenant of Loki that Grafana may read through a gateway."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Tenants = Mapping[str, Mapping[str, str]]


def password_path(folder: str, tenant: str) -> str:
    """Return where the password of a tenant's user is."""
    return f"{folder}/loki_{tenant}_password"


def tenant_password_files(tenants: Tenants, folder: str) -> list[dict[str, str]]:
    """Return the files with the passwords, as the module `systemd_app` takes them."""
    return [
        {"path": password_path(folder, tenant), "secret": passwords["read"], "mode": "0640", "group": "grafana"}
        for tenant, passwords in tenants.items()
    ]


def by_tenant(source: Mapping[str, Any], gateway: Mapping[str, Any], folder: str) -> list[dict[str, Any]]:
    """Return a data source for each tenant, the first under the source's own name; without tenants, only the source."""
    made: list[dict[str, Any]] = []
    ca = gateway.get("ca")
    for tenant in gateway.get("tenants") or [""]:
        json_data, secrets = dict(source["jsonData"]), {}
        one = dict(source)
        if made:
            one |= {"name": f"{source['name']} {tenant}", "uid": f"{source['uid']}-{tenant}", "isDefault": False}
        if tenant:
            one |= {"basicAuth": True, "basicAuthUser": f"{tenant}-read"}
            secrets["basicAuthPassword"] = f"$__file{{{password_path(folder, tenant)}}}"
        if ca:
            json_data["tlsAuthWithCACert"] = True
            secrets["tlsCACert"] = ca
        made.append({**one, "jsonData": json_data, **({"secureJsonData": secrets} if secrets else {})})
    return made


class FilterModule:
    """Makes the filters known to Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by their names."""
        return {"tenant_password_files": tenant_password_files, "by_tenant": by_tenant}
