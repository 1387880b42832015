"""Grafana's dashboards as code. `make dashboards` writes the JSON that the role grafana installs."""
