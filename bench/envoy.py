"""Envoy with one thread, as the competitor: a reverse proxy of gRPC, and a transcoder of HTTP/JSON to gRPC."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from stateside.bench.processes import Process, Stage, free_port
from stateside.bench.works import MeasurementFailed, answering

EXTENSIONS = "type.googleapis.com/envoy.extensions"
MOST_REQUESTS = 100_000  # at once, instead of the 1024 at which Envoy would refuse more


async def start_envoy(stage: Stage, back: int, transcoder: dict[str, Any] | None = None) -> tuple[Process, int]:
    """Envoy before a gRPC server at port `back`; and its port. With a transcoder it takes HTTP/1.1."""
    program = shutil.which("envoy", path=str(Path(sys.executable).parent)) or shutil.which("envoy")
    if program is None:
        raise MeasurementFailed("envoy is missing; scripts/setup-bench installs it")
    port = free_port()
    config = stage.folder / "envoy.json"
    config.write_text(json.dumps(envoy_config(port, back, transcoder)))
    options = ["--concurrency", "1", "--log-level", "error", "--use-dynamic-base-id"]
    envoy = await stage.start("envoy", [program, "-c", str(config), *options])
    await answering(port)
    return envoy, port


def transcoder_filter(service: str, descriptors: Path) -> dict[str, Any]:
    """As Envoy's documentation shows it, with all fields printed as the proxy does."""
    settings = {
        "@type": f"{EXTENSIONS}.filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder",
        "proto_descriptor": str(descriptors),
        "services": [service],
        "print_options": {"always_print_primitive_fields": True},
    }
    return {"name": "envoy.filters.http.grpc_json_transcoder", "typed_config": settings}


def envoy_config(port: int, back: int, transcoder: dict[str, Any] | None) -> dict[str, Any]:
    router = {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": f"{EXTENSIONS}.filters.http.router.v3.Router"},
    }
    route = {"match": {"prefix": "/"}, "route": {"cluster": "back"}}
    manager = {
        "@type": f"{EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "codec_type": "HTTP1" if transcoder else "HTTP2",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [*([transcoder] if transcoder else []), router],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    listener = {"address": address(port), "filter_chains": [{"filters": filters}]}
    return {"static_resources": {"listeners": [listener], "clusters": [cluster(back)]}}


def cluster(back: int) -> dict[str, Any]:
    """One server that speaks HTTP/2, without limits on what it is given."""
    options = f"{EXTENSIONS.partition('/')[2]}.upstreams.http.v3.HttpProtocolOptions"
    protocol = {"@type": f"type.googleapis.com/{options}", "explicit_http_config": {"http2_protocol_options": {}}}
    limits = dict.fromkeys(("max_requests", "max_pending_requests", "max_connections"), MOST_REQUESTS)
    return {
        "name": "back",
        "type": "STATIC",
        "circuit_breakers": {"thresholds": [limits]},
        "typed_extension_protocol_options": {options: protocol},
        "load_assignment": {
            "cluster_name": "back",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(back)}}]}],
        },
    }


def address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
