"""What admission (quotas, policies, webhooks) says of a child is told in its words, and is no missing right."""

import json

import pytest

from minisgl_operator import errors
from minisgl_operator.objects import Child
from support.stage import Stage


def answer(call: str, code: int, message: str) -> errors.ApiError:
    """What an answer of the API server becomes."""
    return errors.api_error(call, code, json.dumps({"kind": "Status", "message": message}).encode())


ADMISSION = {
    "a quota": (403, 'services "m" is forbidden: exceeded quota: q, requested: services=1', "QuotaExceeded", "False"),
    "a webhook that says no": (403, 'admission webhook "v.x" denied the request: no label team', "PodRejected", "True"),
    "a policy": (403, 'deployments.apps "m" is forbidden: ValidatingAdmissionPolicy p denied', "PodRejected", "True"),
    "a webhook that says nothing": (
        500,
        'Internal error occurred: failed calling webhook "v.x": failed to call webhook: connection refused',
        "PodRejected",
        "False",
    ),
}


@pytest.mark.parametrize(("code", "message", "reason", "stalled"), ADMISSION.values(), ids=ADMISSION)
def test_what_admission_says_is_no_missing_right_and_is_told_and_asked_again(
    code: int, message: str, reason: str, stalled: str
) -> None:
    stage = Stage()
    stage.cluster.fail["patch deployments"] = answer("patch deployments", code, message)
    assert stage.reconcile() == 15.0
    assert (stage.reason, stage.stalled["status"]) == (reason, stalled)
    assert f"patch deployments: {message};" in stage.ready["message"]
    stage.reconcile()
    assert stage.reason == "Starting"


def test_rbacs_own_words_are_a_missing_right() -> None:
    words = 'deployments.apps "m" is forbidden: User "system:serviceaccount:s:o" cannot patch resource "deployments"'
    assert type(answer("patch deployments", 403, words)) is errors.Forbidden


def test_where_no_job_may_be_made_the_model_is_made_without_one() -> None:
    stage = Stage()
    stage.cluster.fail["patch jobs"] = answer("patch jobs", 403, 'admission webhook "v" denied the request: no Jobs')
    stage.reconcile()
    assert stage.reason == "Starting"
    assert stage.child(Child.DEPLOYMENT)


def test_nothing_is_written_into_a_namespace_that_goes_away() -> None:
    stage = Stage()
    message = (
        'serviceaccounts "m" is forbidden: unable to create new content in namespace ns because it is being terminated'
    )
    stage.cluster.fail["patch serviceaccounts"] = answer("patch serviceaccounts", 403, message)
    assert stage.reconcile() is None
    assert stage.cluster.writes == []
