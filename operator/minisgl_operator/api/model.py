"""`spec.model`: which model is served, where it lies, and what opens that place.

Every field's description is what `kubectl explain` prints.
"""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints, field_validator

from minisgl_operator.api.part import Part, rules
from minisgl_operator.api.scalar import DataKey, Name

# A folder below a claim, a bucket, an image or a revision: no component starts with a dot, so none leads out of it.
_FOLDER = r"(/[A-Za-z0-9_][A-Za-z0-9._=+-]*)*"
_PVC = rf"pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?{_FOLDER}"
_HF = rf"hf://[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*(@[A-Za-z0-9][A-Za-z0-9._-]*{_FOLDER})?"
_S3 = rf"s3://[a-z0-9][a-z0-9._-]*[a-z0-9]{_FOLDER}/?"
# Registry first, then a tag or a digest: `image:8/path` could also be port 8 of a registry called image.
OCI_IMAGE = (
    r"[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+"
    r"(:[A-Za-z0-9_][A-Za-z0-9._-]*|@sha256:[a-f0-9]{64})"
)
_ENDPOINT = r"^https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[A-Za-z0-9._/-]*)?$"
SOURCE_PATTERN = rf"^({_PVC}|{_HF}|{_S3}|oci://{OCI_IMAGE}{_FOLDER})$"


class TokenSecret(Part):
    """A key of a Secret in the model's namespace."""

    name: Name = Field(description="Name of the Secret.")
    key: DataKey = Field(default="token", description="Key within the Secret.")


class CredentialsSecret(Part):
    """An access key of an object store: two keys of a Secret in the model's namespace."""

    name: Name = Field(description="Name of the Secret.")
    access_key_id_key: DataKey = Field(
        default="AWS_ACCESS_KEY_ID", description="Key within the Secret that holds the access key id."
    )
    secret_access_key_key: DataKey = Field(
        default="AWS_SECRET_ACCESS_KEY", description="Key within the Secret that holds the secret access key."
    )


class S3(Part):
    """The object store behind a source s3://."""

    endpoint: Annotated[str, StringConstraints(max_length=512, pattern=_ENDPOINT)] | None = Field(
        default=None,
        description="URL of an S3-compatible server, such as http://minio.storage.svc:9000. Unset: AWS in this region.",
    )
    region: Annotated[str, StringConstraints(max_length=64, pattern=r"^[a-z0-9][a-z0-9-]*$")] | None = Field(
        default=None, description="Region of the bucket. Unset: us-east-1, which other servers than AWS ignore."
    )
    credentials_secret: CredentialsSecret | None = Field(
        default=None,
        description="Access key that may list and read the bucket, given to the pods as AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY. The operator never reads the Secret. Unset: the bucket is read without a signature.",
    )

    @field_validator("endpoint")
    @classmethod
    def has_an_address(cls, endpoint: str | None) -> str | None:
        """What no pattern tells: that the port is one, and the address in brackets as well."""
        if endpoint is not None and urlsplit(endpoint).port == 0:
            raise ValueError("port 0 cannot be connected to")
        return endpoint


class Model(Part):
    """Which model is served, and under which name."""

    model_config = rules(
        (
            "!has(self.s3) || self.source.startsWith('s3://')",
            "model.s3 is for a source s3://; remove it or change model.source",
        )
    )

    source: Annotated[str, StringConstraints(max_length=512, pattern=SOURCE_PATTERN)] = Field(
        description="Where the model lies: pvc://<claim>[/<folder>] for a volume of this namespace, "
        "hf://<org>/<name>[@<revision>] for the Hugging Face hub, s3://<bucket>[/<folder>] for an object store, "
        "oci://<registry>/<image>:<tag>[/<folder>] for an image that the kubelet mounts (it needs a cluster with image "
        "volumes). A change replaces the pods."
    )
    served_name: Annotated[str, StringConstraints(max_length=253, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$")] | None = (
        Field(default=None, description="Model name that clients ask for. Unset: the name of this object.")
    )
    token_secret: TokenSecret | None = Field(
        default=None,
        description="Hugging Face token, given to the pods as HF_TOKEN. The operator never reads the Secret.",
    )
    s3: S3 | None = Field(default=None, description="The object store of a source s3://.")
