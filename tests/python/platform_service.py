"""Drives a running coffer server as a platform's service would, from another language.

Stubs are generated from proto/ by tests/run.sh; everything here goes through grpcio alone. Any surprise is an
assertion error with a traceback, and the exit status is that of Python.
"""

import base64
import os
import sys

import grpc
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from coffer.v1 import access_pb2, access_pb2_grpc, resources_pb2, scopes_pb2, scopes_pb2_grpc
from coffer.v1 import declarations_pb2, declarations_pb2_grpc, instances_pb2, instances_pb2_grpc
from coffer.v1 import redactions_pb2, redactions_pb2_grpc, templates_pb2, templates_pb2_grpc
from coffer.v1 import secrets_pb2, secrets_pb2_grpc, tokens_pb2, tokens_pb2_grpc, workloads_pb2, workloads_pb2_grpc

ENCRYPTED = resources_pb2.SECRET_KIND_ENCRYPTED
PLAIN = resources_pb2.SECRET_KIND_PLAIN


class Bearer(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor, grpc.StreamStreamClientInterceptor):
    """Adds the token to every call. grpcio's call credentials want TLS, which loopback does without."""

    def __init__(self, token):
        self._header = ("authorization", "Bearer " + token)

    def intercept_unary_unary(self, continuation, details, request):
        return self._with_token(continuation, details, request, 10)

    def intercept_unary_stream(self, continuation, details, request):
        return self._with_token(continuation, details, request, None)

    intercept_stream_stream = intercept_unary_stream

    def _with_token(self, continuation, details, request, seconds):
        class WithToken(grpc.ClientCallDetails):
            method = details.method
            timeout = seconds
            metadata = [*(details.metadata or ()), self._header]
            credentials = None
            wait_for_ready = None
            compression = None

        return continuation(WithToken(), request)


class Caller:
    """Every service of coffer, called by one principal."""

    def __init__(self, address, token, options=()):
        channel = grpc.intercept_channel(grpc.insecure_channel(address, options), Bearer(token))
        self.secrets = secrets_pb2_grpc.SecretsStub(channel)
        self.imports = secrets_pb2_grpc.ImportsStub(channel)
        self.scopes = scopes_pb2_grpc.ScopesStub(channel)
        self.access = access_pb2_grpc.AccessStub(channel)
        self.tokens = tokens_pb2_grpc.TokensStub(channel)
        self.workloads = workloads_pb2_grpc.WorkloadsStub(channel)
        self.templates = templates_pb2_grpc.TemplatesStub(channel)
        self.redactions = redactions_pb2_grpc.RedactionsStub(channel)
        self.references = declarations_pb2_grpc.ReferencesStub(channel)
        self.manifests = declarations_pb2_grpc.ManifestsStub(channel)
        self.instances = instances_pb2_grpc.InstancesStub(channel)


class Refused(Exception):
    """A call that coffer refused, with the details a program would look at."""

    def __init__(self, error):
        super().__init__(error.details())
        self.code = error.code()
        self.message = error.details()
        self.reason = None
        self.fields = {}
        for detail in rpc_status.from_call(error).details:
            info = error_details_pb2.ErrorInfo()
            if detail.Unpack(info):
                assert info.domain == "coffer", info
                self.reason = info.reason
            bad = error_details_pb2.BadRequest()
            if detail.Unpack(bad):
                self.fields = {v.field: v.description for v in bad.field_violations}


def refused(call, request):
    """The refusal of a call that must not succeed."""
    try:
        call(request)
    except grpc.RpcError as error:
        return Refused(error)
    raise AssertionError(f"succeeded and should have been refused: {type(request).__name__}")


def main():
    address = os.environ["COFFER_ADDRESS"].removeprefix("http://")
    operator = Caller(address, open(os.environ["COFFER_TOKEN_FILE"]).read().strip())

    # The platform's own service, set up by the operator.
    grants = [
        ("services/platform", "tokens:issue", "users/-"),
        ("services/platform", "access:manage", "projects/-"),
        ("services/platform", "secrets:inject", "projects/-"),
        ("services/platform", "access:manage", "projects/-/environments/-"),
        ("services/platform", "workloads:issue", "projects/-/environments/-"),
    ]
    for principal, permission, pattern in grants:
        operator.access.CreateGrant(
            access_pb2.CreateGrantRequest(principal=principal, permission=permission, pattern=pattern)
        )
    issued = operator.tokens.IssueToken(
        tokens_pb2.IssueTokenRequest(principal="services/platform", description="the platform, in Python")
    )
    assert issued.token.startswith("cof_service_"), "the shape of a service's token"
    assert issued.metadata.principal == "services/platform"
    platform = Caller(address, issued.token)

    # Without the option, gRPC's core makes an authority of the escaped path, which h2 refuses with RST_STREAM.
    local = Caller(os.environ["COFFER_SOCKET"], issued.token, [("grpc.default_authority", "localhost")])
    local.scopes.ListScopes(scopes_pb2.ListScopesRequest())

    # It provisions a person: a grant on a project, and a short token to act for them.
    platform.access.CreateGrant(
        access_pb2.CreateGrantRequest(principal="users/ada", permission="secrets:manage", pattern="projects/tide")
    )
    token = platform.tokens.IssueToken(
        tokens_pb2.IssueTokenRequest(principal="users/ada", ttl=duration_pb2.Duration(seconds=300))
    )
    lifetime = token.metadata.expire_time.seconds - token.metadata.create_time.seconds
    assert 299 <= lifetime <= 301, lifetime
    ada = Caller(address, token.token)

    create(ada)
    edit(ada)
    pages(ada)
    copies(ada, platform)
    access(ada, platform)
    environment(ada, platform, address)
    delete(ada)
    agents(ada, platform)
    watches(ada, platform)
    print("platform: all well")


def create(ada):
    """Creating, as the forms of the products do."""
    value = "postgres://ada:päss\nwörd@db/tide?x=1"
    secret = ada.secrets.CreateSecret(
        secrets_pb2.CreateSecretRequest(
            parent="projects/tide", secret_id="DATABASE_URL", value=value.encode(), description="Main database"
        )
    )
    assert secret.name == "projects/tide/secrets/DATABASE_URL"
    assert secret.kind == ENCRYPTED, "encrypted unless PLAIN is said"
    assert not secret.HasField("value"), "an encrypted value is never shown"
    assert secret.hint == "post…?x=1", secret.hint
    assert secret.creator == "users/ada" and secret.updater == "users/ada"
    assert secret.value_version == 1 and secret.etag and secret.uid and secret.clonable
    assert secret.create_time.seconds > 1_600_000_000

    plain = ada.secrets.CreateSecret(
        secrets_pb2.CreateSecretRequest(parent="projects/tide", secret_id="REGION", value=b"eu-west-1", kind=PLAIN)
    )
    assert plain.value == b"eu-west-1" and plain.kind == PLAIN

    # Every refusal names a reason, and bad fields by name.
    def refuse(**fields):
        request = dict(parent="projects/tide", secret_id="TOKEN", value=b"v")
        return refused(ada.secrets.CreateSecret, secrets_pb2.CreateSecretRequest(**(request | fields)))

    no = refuse(secret_id="DATABASE_URL")
    assert (no.code, no.reason) == (grpc.StatusCode.ALREADY_EXISTS, "SECRET_EXISTS"), vars(no)
    no = refuse(secret_id="")
    assert (no.code, no.fields) == (grpc.StatusCode.INVALID_ARGUMENT, {"secret_id": "Secret key is required"}), vars(no)
    no = refuse(value=b"")
    assert no.fields == {"value": "Secret value is required"}, vars(no)
    no = refuse(secret_id="LD_PRELOAD")
    assert no.reason == "SECRET_NAME_RESERVED" and "secret_id" in no.fields, vars(no)
    no = refuse(value=b"\xff\xfe")
    assert "value" in no.fields, vars(no)
    no = refuse(parent="projects/other")
    assert (no.code, no.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED"), vars(no)


def edit(ada):
    """Editing: a value kept or replaced, etags, nothing to save."""
    name = "projects/tide/secrets/DATABASE_URL"
    before = ada.secrets.GetSecret(secrets_pb2.GetSecretRequest(name=name))
    after = ada.secrets.UpdateSecret(
        secrets_pb2.UpdateSecretRequest(name=name, description="Main", etag=before.etag)
    )
    assert after.description == "Main" and after.value_version == 1 and after.hint == before.hint
    assert after.etag != before.etag and after.uid == before.uid

    no = refused(ada.secrets.UpdateSecret, secrets_pb2.UpdateSecretRequest(name=name, description="x", etag=before.etag))
    assert (no.code, no.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH"), vars(no)
    no = refused(ada.secrets.UpdateSecret, secrets_pb2.UpdateSecretRequest(name=name, value=b""))
    assert (no.code, no.reason, no.message) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "NO_CHANGES",
        "No changes to save",
    ), vars(no)
    changed = ada.secrets.UpdateSecret(secrets_pb2.UpdateSecretRequest(name=name, value=b"short"))
    assert changed.value_version == 2 and changed.hint == "" and changed.description == "Main"


def pages(ada):
    """Lists come in pages, whose tokens belong to one call."""
    entries = [
        secrets_pb2.ImportEntry(secret_id=f"BULK_{n:03}", value=f"value {n}".encode(), kind=PLAIN) for n in range(250)
    ]
    preview = ada.imports.ImportSecrets(
        secrets_pb2.ImportSecretsRequest(
            parent="projects/tide",
            entries=[secrets_pb2.ImportEntry(secret_id=e.secret_id) for e in entries],
            validate_only=True,
        )
    )
    created = secrets_pb2.ImportResult.ACTION_CREATED
    assert [r.action for r in preview.results] == [created] * 250
    ada.imports.ImportSecrets(secrets_pb2.ImportSecretsRequest(parent="projects/tide", entries=entries))

    seen, token = [], ""
    while True:
        page = ada.secrets.ListSecrets(
            secrets_pb2.ListSecretsRequest(parent="projects/tide", page_size=60, page_token=token)
        )
        assert 0 < len(page.secrets) <= 60
        seen += [s.name.rsplit("/", 1)[1] for s in page.secrets]
        if not page.next_page_token:
            break
        token = page.next_page_token
    assert seen == sorted(seen) and len(seen) == len(set(seen)) == 252, len(seen)
    no = refused(ada.secrets.ListSecrets, secrets_pb2.ListSecretsRequest(parent="projects/-", page_token=token))
    assert (no.code, no.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID"), vars(no)
    largest = ada.secrets.ListSecrets(secrets_pb2.ListSecretsRequest(parent="projects/tide", page_size=100_000))
    assert len(largest.secrets) == 200

    stats = ada.secrets.GetSecretStats(secrets_pb2.GetSecretStatsRequest(parent="projects/tide"))
    assert (stats.total, stats.encrypted, stats.plain, stats.scopes) == (252, 1, 251, 1), stats


def copies(ada, platform):
    """Cloning to a project the person may manage, and only there."""
    request = secrets_pb2.CloneSecretsRequest(
        names=["projects/tide/secrets/DATABASE_URL", "projects/tide/secrets/REGION"], destination="projects/ebb"
    )
    no = refused(ada.secrets.CloneSecrets, request)
    assert no.code == grpc.StatusCode.PERMISSION_DENIED, vars(no)
    platform.access.CreateGrant(
        access_pb2.CreateGrantRequest(principal="users/ada", permission="secrets:manage", pattern="projects/ebb")
    )
    copies = ada.secrets.CloneSecrets(request).secrets
    assert [c.name for c in copies] == ["projects/ebb/secrets/DATABASE_URL", "projects/ebb/secrets/REGION"]
    assert copies[0].cloned_from == "projects/tide/secrets/DATABASE_URL"
    assert not copies[0].HasField("value") and copies[1].value == b"eu-west-1"
    no = refused(ada.secrets.CloneSecrets, request)
    assert (no.code, no.reason) == (grpc.StatusCode.ALREADY_EXISTS, "SECRET_EXISTS"), vars(no)

    menu = ada.scopes.ListScopes(scopes_pb2.ListScopesRequest(pattern="projects/-"))
    assert [s.name for s in menu.scopes] == ["projects/ebb", "projects/tide"]
    assert set(menu.scopes[0].permissions) == {"secrets:read", "secrets:manage"}


def access(ada, platform):
    """Who can do what, and why."""
    entries = platform.access.ListEffectiveAccess(
        access_pb2.ListEffectiveAccessRequest(scope="projects/tide", page_size=200)
    ).entries
    why = {(e.principal, e.permission): e.reason for e in entries}
    assert why["users/ada", "secrets:manage"] == access_pb2.EffectiveAccess.REASON_GRANT
    assert why["services/platform", "access:manage"] == access_pb2.EffectiveAccess.REASON_WILDCARD_GRANT
    mine = ada.access.TestPermissions(
        access_pb2.TestPermissionsRequest(
            resource="projects/tide", permissions=["secrets:read", "secrets:manage", "access:manage"]
        )
    )
    assert list(mine.permissions) == ["secrets:read", "secrets:manage"]
    no = refused(
        ada.access.CreateGrant,
        access_pb2.CreateGrantRequest(principal="users/eve", permission="secrets:read", pattern="projects/tide"),
    )
    assert no.code == grpc.StatusCode.PERMISSION_DENIED, vars(no)
    no = refused(
        platform.access.CreateGrant,
        access_pb2.CreateGrantRequest(principal="users/eve", permission="secrets:read", pattern="accounts/eve"),
    )
    assert no.code == grpc.StatusCode.PERMISSION_DENIED, vars(no)


def environment(ada, platform, address):
    """What a workload receives, byte for byte, and how a refresh looks."""
    exact = "line one\nline two\r\n\ttab \"quotes\" $HOME `x` \\ é 漢字 🔑 " + "x" * 60_000
    parent = "projects/tide/environments/production"
    platform.access.CreateGrant(
        access_pb2.CreateGrantRequest(principal="users/ada", permission="secrets:manage", pattern=parent)
    )
    ada.secrets.CreateSecret(
        secrets_pb2.CreateSecretRequest(parent=parent, secret_id="DATABASE_URL", value=exact.encode())
    )
    entries, token = [], ""
    while True:
        described = ada.secrets.DescribeEnvironment(
            secrets_pb2.DescribeEnvironmentRequest(name=parent, page_size=100, page_token=token)
        )
        entries += described.entries
        token = described.next_page_token
        if not token:
            break
    assert len(entries) == 253, len(entries)
    states = {e.source: e.state for e in entries if e.variable == "DATABASE_URL"}
    entry = secrets_pb2.EnvironmentEntry
    assert states == {
        parent + "/secrets/DATABASE_URL": entry.STATE_EFFECTIVE,
        "projects/tide/secrets/DATABASE_URL": entry.STATE_SHADOWED,
    }, states

    workload = parent + "/servers/web"
    token = platform.tokens.IssueToken(tokens_pb2.IssueTokenRequest(principal=workload)).token
    web = Caller(address, token)
    fetched = web.workloads.FetchEnvironment(workloads_pb2.FetchEnvironmentRequest())
    values = {v.name: v.value for v in fetched.variables}
    assert values["DATABASE_URL"] == exact.encode() and values["REGION"] == b"eu-west-1" and len(values) == 252
    assert fetched.environment_revision == described.environment_revision
    again = web.workloads.FetchEnvironment(
        workloads_pb2.FetchEnvironmentRequest(if_revision_not=fetched.environment_revision)
    )
    assert again.unchanged and not again.variables
    dry = web.workloads.FetchEnvironment(workloads_pb2.FetchEnvironmentRequest(dry_run=True))
    assert len(dry.variables) == 252 and not any(v.HasField("value") for v in dry.variables)
    no = refused(
        web.workloads.FetchEnvironment, workloads_pb2.FetchEnvironmentRequest(workload="projects/tide/servers/web")
    )
    assert no.code == grpc.StatusCode.PERMISSION_DENIED, vars(no)
    # Nothing flows down: inject on projects is not inject on their environments.
    no = refused(platform.workloads.FetchEnvironment, workloads_pb2.FetchEnvironmentRequest(workload=workload))
    assert no.code == grpc.StatusCode.PERMISSION_DENIED, vars(no)
    no = refused(ada.workloads.FetchEnvironment, workloads_pb2.FetchEnvironmentRequest(workload=workload))
    assert no.code == grpc.StatusCode.PERMISSION_DENIED, vars(no)


def delete(ada):
    """Deleting is for good."""
    name = "projects/ebb/secrets/REGION"
    ada.secrets.DeleteSecret(secrets_pb2.DeleteSecretRequest(name=name))
    no = refused(ada.secrets.GetSecret, secrets_pb2.GetSecretRequest(name=name))
    assert (no.code, no.reason) == (grpc.StatusCode.NOT_FOUND, "SECRET_NOT_FOUND"), vars(no)
    left = ada.secrets.ListSecrets(secrets_pb2.ListSecretsRequest(parent="projects/ebb")).secrets
    assert [s.name for s in left] == ["projects/ebb/secrets/DATABASE_URL"]



def agents(ada, platform):
    """Placeholders, redaction, references and manifests, as an agent platform uses them."""
    key = "sk-agent-0123456789-abcdefg"
    ada.secrets.CreateSecret(
        secrets_pb2.CreateSecretRequest(
            parent="projects/tide", secret_id="AGENT_KEY", value=key.encode(), allowed_hosts=["api.example.com"]
        )
    )
    workload = "projects/tide/servers/agent"
    request = templates_pb2.RenderTemplateRequest
    header = request(
        workload=workload,
        texts=["Bearer {{AGENT_KEY}}", "{{ REGION }} and {{{{REGION}}"],
        sink=request.SINK_HEADER,
        destination_host="api.example.com",
    )
    rendered = platform.templates.RenderTemplate(header)
    assert list(rendered.texts) == [f"Bearer {key}".encode(), b"eu-west-1 and {{REGION}}"], rendered.texts
    header.destination_host = "example.com"
    no = refused(platform.templates.RenderTemplate, header)
    assert (no.code, no.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "DESTINATION_NOT_ALLOWED"), vars(no)
    no = refused(
        platform.templates.RenderTemplate,
        request(workload=workload, texts=["{{AGENT_KEY}}"], sink=request.SINK_INSTRUCTION),
    )
    assert no.reason == "NOT_FOR_INSTRUCTIONS" and "AGENT_KEY" in no.message and key not in no.message, vars(no)

    transcript = f"called with {key} and {base64.b64encode(key.encode()).decode()}.".encode()
    cleaned = platform.redactions.RedactText(
        redactions_pb2.RedactTextRequest(workload=workload, texts=[transcript, b"nothing"])
    )
    assert list(cleaned.texts) == [b"called with {{AGENT_KEY}} and {{AGENT_KEY}}.", b"nothing"], cleaned.texts
    assert cleaned.replaced == 2
    parts = [redactions_pb2.RedactStreamRequest(workload=workload)]
    parts += [redactions_pb2.RedactStreamRequest(part=bytes([byte])) for byte in transcript]
    streamed = b"".join(answer.part for answer in platform.redactions.RedactStream(iter(parts)))
    assert streamed == cleaned.texts[0], streamed

    ada.references.SetReference(
        declarations_pb2.SetReferenceRequest(name="projects/tide/references/search", texts=["Bearer {{AGENT_KEY}}"])
    )
    no = refused(ada.secrets.DeleteSecret, secrets_pb2.DeleteSecretRequest(name="projects/tide/secrets/AGENT_KEY"))
    assert no.reason == "SECRET_REFERENCED" and "projects/tide/references/search" in no.message, vars(no)
    ada.manifests.SetManifest(
        declarations_pb2.SetManifestRequest(
            name="projects/tide/manifests/agent",
            variables=[declarations_pb2.ManifestVariable(variable="NOT_THERE", required=True, description="ask ada")],
        )
    )
    health = ada.scopes.GetScopeHealth(scopes_pb2.GetScopeHealthRequest(scope="projects/tide"))
    assert [(m.variable, m.description) for m in health.missing] == [("NOT_THERE", "ask ada")], health.missing


def watches(ada, platform):
    """A watch that begins with what one has, and the badge that says who must be restarted."""
    workload = "projects/tide/servers/agent"
    fetched = platform.workloads.FetchEnvironment(workloads_pb2.FetchEnvironmentRequest(workload=workload))
    assert list(fetched.missing_required) == ["NOT_THERE"]
    watch = platform.workloads.WatchEnvironment(
        workloads_pb2.WatchEnvironmentRequest(workload=workload, environment_revision=fetched.environment_revision)
    )
    watch.initial_metadata()
    ada.secrets.UpdateSecret(secrets_pb2.UpdateSecretRequest(name="projects/tide/secrets/AGENT_KEY", value=b"another-key"))
    change = next(watch)
    watch.cancel()
    assert list(change.changed_names) == ["AGENT_KEY"] and not change.reset, change
    page = ada.instances.ListInstances(instances_pb2.ListInstancesRequest(parent=workload))
    (agent,) = page.workloads
    assert agent.restart_required and list(agent.changed_names) == ["AGENT_KEY"], agent
    news = ada.instances.WatchInstances(instances_pb2.WatchInstancesRequest(parent="projects/tide"))
    first = next(news)
    assert first.synced and [w.workload for w in first.workloads] == [workload], first
    platform.workloads.FetchEnvironment(workloads_pb2.FetchEnvironmentRequest(workload=workload))
    second = next(news)
    news.cancel()
    assert [(w.workload, w.restart_required) for w in second.workloads] == [(workload, False)], second


if __name__ == "__main__":
    sys.exit(main())
