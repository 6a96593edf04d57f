"""What `helm test` runs in the operator's image: is the API served, and may this service account read models?

Standard library only. A resource is served as soon as its definition is established, so no right to read
definitions is needed.
"""

# ruff: noqa: S310, T201 (a script that prints, and asks one fixed address)
import json
import os
import ssl
import sys
import urllib.error
import urllib.request
from pathlib import Path

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
API = f"https://{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}"


def get(path):
    """GET from the API server as this pod's service account."""
    request = urllib.request.Request(API + path, headers={"Authorization": f"Bearer {(ACCOUNT / 'token').read_text()}"})
    trust = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    try:
        with urllib.request.urlopen(request, context=trust, timeout=30) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        sys.exit(f"GET {path}: {error.code} {error.read().decode(errors='replace')}")


served = [resource["name"] for resource in get("/apis/minisgl.io/v1alpha1")["resources"]]
print(f"served: {', '.join(sorted(served))}")
if "minisglmodels/status" not in served:
    sys.exit("minisglmodels/status is not served; install the chart with crds.install=true")
for namespace in sys.argv[1:] or [""]:
    scope = f"namespaces/{namespace}/" if namespace else ""
    models = get(f"/apis/minisgl.io/v1alpha1/{scope}minisglmodels?limit=1")
    num_models = len(models["items"]) + models["metadata"].get("remainingItemCount", 0)
    print(f"models in {namespace or 'all namespaces'}: {num_models}")
