"""What can be asked for, and whether it can be had now."""

import json
from pathlib import Path

from inference.configuration import Adapter, Models
from inference.deployments import Served
from inference.generation import ModelGateway
from inference.prompts import Prompts
from strata.inference.v1.inference_service_pb2 import ListModelsResponse, ModelEntry, PromptEntry

WEIGHTS = "adapter_model.safetensors"


def adapter_sha256(name: str, folder: Path) -> str:
    """Return the hash of an adapter's weights as its manifest states it; empty where there is none."""
    try:
        manifest = json.loads((folder / name / "manifest.json").read_text())
        return str(manifest["sha256"][WEIGHTS])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def list_models(gateway: ModelGateway, prompts: Prompts, repository_dir: Path) -> ListModelsResponse:
    """Return tiers, adapters and prompts."""
    models, deployments = gateway.models, gateway.deployments
    entries = []
    for name, target in models.tiers.items():
        served = [deployments[target.deployment], *(deployments[fallback] for fallback in target.fallbacks)]
        entries.append(
            ModelEntry(
                name=name, kind="tier", deployment=target.deployment, ready=any(each.serves(each.spec.base_model) for each in served)
            )
        )
    entries += [
        _adapter_entry(name, adapter, models, deployments[adapter.deployment], repository_dir) for name, adapter in models.adapters.items()
    ]
    listed = [PromptEntry(name=prompt.name, sha256=prompt.sha256) for prompt in prompts.by_name.values()]
    return ListModelsResponse(models=entries, prompts=listed)


def _adapter_entry(name: str, adapter: Adapter, models: Models, served: Served, repository_dir: Path) -> ModelEntry:
    engine = models.deployments[adapter.deployment].engine
    sha256 = adapter_sha256(name, repository_dir / engine.adapters_dir) if engine else ""
    return ModelEntry(
        name=name, kind="adapter", deployment=adapter.deployment, ready=served.serves(name), tenants=adapter.tenants, sha256=sha256
    )
