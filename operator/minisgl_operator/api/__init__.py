"""The resource MiniSGLModel as its users write and read it: names, spec, status. The API is this folder.

Knows nothing of Deployments, kopf or HTTP.
"""

from __future__ import annotations

from minisgl_operator.api.cache import Cache
from minisgl_operator.api.model import S3, SOURCE_PATTERN, CredentialsSecret, Model, TokenSecret
from minisgl_operator.api.names import (
    API_VERSION,
    APPLIED_HASH,
    FIELD_MANAGER,
    GROUP,
    IMAGE,
    INSPECTS_LABEL,
    KIND,
    MANAGED_BY_LABEL,
    MAX_NAME_LEN,
    MODEL_LABEL,
    PLURAL,
    SPEC_HASH,
    TEMPLATE_HASH,
    VERSION,
    Key,
    labels,
    selector,
    url,
)
from minisgl_operator.api.part import Part
from minisgl_operator.api.plan import Plan
from minisgl_operator.api.pod import DECIDED_ENV, EnvVar, PodTemplate
from minisgl_operator.api.rollout import Rollout
from minisgl_operator.api.scalar import QUANTITY_PATTERN
from minisgl_operator.api.spec import Device, Resources, Spec
from minisgl_operator.api.status import Condition, Launched, Loading, PodStart, Startup, Status
from minisgl_operator.api.traffic import Monitoring, NetworkPolicy, Peer

__all__ = [
    "API_VERSION",
    "APPLIED_HASH",
    "DECIDED_ENV",
    "FIELD_MANAGER",
    "GROUP",
    "IMAGE",
    "INSPECTS_LABEL",
    "KIND",
    "MANAGED_BY_LABEL",
    "MAX_NAME_LEN",
    "MODEL_LABEL",
    "PLURAL",
    "QUANTITY_PATTERN",
    "S3",
    "SOURCE_PATTERN",
    "SPEC_HASH",
    "TEMPLATE_HASH",
    "VERSION",
    "Cache",
    "Condition",
    "CredentialsSecret",
    "Device",
    "EnvVar",
    "Key",
    "Launched",
    "Loading",
    "Model",
    "Monitoring",
    "NetworkPolicy",
    "Part",
    "Peer",
    "Plan",
    "PodStart",
    "PodTemplate",
    "Resources",
    "Rollout",
    "Spec",
    "Startup",
    "Status",
    "TokenSecret",
    "labels",
    "selector",
    "url",
]
