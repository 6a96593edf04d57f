"""`python -m cluster COMMAND`: the command line of the one-node Kubernetes. Knows the words, not the work."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys

from cluster import cuda_image, images, lifecycle
from cluster.leftovers import find_leftovers
from cluster.paths import AUDIT, BIN, CACHE, KUBECONFIG, LOGS
from cluster.say import ClusterError, say

EPILOG = f"""\
The first `up` on a machine builds Kubernetes and its companions from source (minutes); what is built is kept in
{CACHE} and shared by all clones of this repository.
Later ones take seconds. The cluster has its own namespaces: nothing of it can be seen or reached from the machine
but the API server on a port of 127.0.0.1. Needs Linux, root, and Debian's package manager for what is missing.

  python -m cluster up && export KUBECONFIG=$(python -m cluster kubeconfig)
  eval "$(python -m cluster env --export)"; $BIN/kubectl get nodes
  python -m cluster image            after a change of code: build and load both images
  python -m cluster down && python -m cluster check-clean
Logs of every program: {LOGS}
"""


def main() -> int:
    """Run one command; 0 when it did what it says."""
    parser = argparse.ArgumentParser(
        prog="python -m cluster",
        description="A real one-node Kubernetes in namespaces of its own, for the demo and the end-to-end tests.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("build", help="install and build what is missing: packages, programs, the base image")
    commands.add_parser("image", help="build all images, load them where a cluster runs, print their names")
    commands.add_parser("image-cuda", help="build the runtime's image for GPUs and look into it (35 GiB of disk)")
    commands.add_parser("up", help="start the cluster, or bring the running one up to date")
    commands.add_parser("down", help="end it; leaves no process, mount, link or cgroup")
    commands.add_parser("check-clean", help="list what an ended cluster left behind; exit 1 if there is anything")
    commands.add_parser("kubeconfig", help="print the path of the kubeconfig")
    env = commands.add_parser("env", help="print what tests need to know, as JSON")
    env.add_argument("--export", action="store_true", help="as lines for a shell's eval")
    commands.add_parser("clean-cache", help="delete everything built; refuses while a cluster is up")
    options = parser.parse_args()
    try:
        return run(options)
    except ClusterError as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        say("interrupted; `python -m cluster down` clears up")
        return 130


def run(options: argparse.Namespace) -> int:
    """Do what the parsed command says."""
    match options.command:
        case "kubeconfig":
            print(KUBECONFIG)
        case "env":
            print_environment(options.export)
        case "check-clean":
            found = find_leftovers()
            print("\n".join(found) if found else "clean")
            return 1 if found else 0
        case command:
            if os.geteuid() != 0 and command != "build":
                raise ClusterError("namespaces, mounts and cgroups need root", "run as root")
            with lifecycle.locked():
                change(command)
    return 0


def change(command: str) -> None:
    """The commands that change something; only one runs at a time."""
    match command:
        case "build":
            lifecycle.build()
        case "image":
            print("\n".join(lifecycle.image()))
        case "image-cuda":
            print(cuda_image.build())
        case "up":
            lifecycle.up()
        case "down":
            lifecycle.down()
        case "clean-cache":
            lifecycle.clean_cache()


def print_environment(export: bool) -> None:
    """What other rooms read: as JSON, or as lines for eval."""
    now = {recipe.short: recipe.name() for recipe in (images.runtime(), images.without_gpu(), images.operator())}
    # The images the cluster has, for those can be run; the code may have changed since.
    remembered = lifecycle.remembered_images()
    loaded = now | {short: name for short, name in remembered.items() if short in now}
    if stale := [short for short in now if loaded[short] != now[short]]:
        say(f"{' and '.join(stale)}: the code changed since they were loaded; run: python -m cluster image")
    values = {
        "KUBECONFIG": str(KUBECONFIG),
        "BIN": str(BIN),
        "MINISGL_OPERATOR_IMAGE": loaded["minisgl-operator"],
        "MINISGL_RUNTIME_IMAGE": loaded["minisgl-runtime"],
        "MINISGL_RUNTIME_CLASS": "hostfs",
        "MINISGL_WITHOUT_GPU_IMAGE": loaded["minisgl-runtime-without-gpu"],
        "MINISGL_WHOLE_RUNTIME_IMAGE": remembered.get(images.whole_runtime().short, ""),  # after `image` alone
        "MINISGL_AUDIT_LOG": str(AUDIT),
        "MINISGL_LOGS": str(LOGS),
    }
    if export:
        print("\n".join(f"export {key}={shlex.quote(value)}" for key, value in values.items()))
    else:
        print(json.dumps(values, indent=1))


if __name__ == "__main__":
    sys.exit(main())
