#!/usr/bin/env python3
"""Checks what can be checked of the container files without an engine.

docker-compose*.yml: images are pinned, each service has a memory limit, a restart policy and a health check,
ports are open to this machine alone, and files that are mounted or hold secrets exist. Dockerfiles:
what they copy exists, and they set a user and a health check. db-deploy: which tags it pushes.
deploy/kubernetes: it parses, and containers are closed. Everywhere: jetcopy knows each JETCOPY_ variable.

The hosted workflows do the rest: `docker compose config` in db-deploy.yml, hadolint in lint.yml.
"""

import pathlib
import re
import subprocess
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
COMPOSE = ["docker-compose.yml", "docker-compose.db.yml"]
DOCKERFILES = ["Dockerfile", "docker/timescaledb/Dockerfile"]

# Files that scripts/compose-secrets.sh makes.
MADE = "secrets/"

problems = []


def problem(where, what):
    problems.append(f"{where}: {what}")


def pinned(image):
    """A tag that names a version, or a digest."""
    name, _, tag = image.partition("@sha256:") if "@sha256:" in image else image.rpartition(":")
    return bool(name) and tag not in ("", "latest") and "/" not in tag


def known_secrets():
    script = (ROOT / "scripts/compose-secrets.sh").read_text()
    made = re.findall(r"^secret (\w+)$", script, re.M) + re.findall(r">secrets/(\w+)$", script, re.M)
    signed = re.findall(r"^ +certificate (\w+)$", script, re.M)
    return {*made, "ca_crt", *(f"{name}_{kind}" for name in signed for kind in ("crt", "key"))}


def check_path(where, path):
    path = path.removeprefix("./")
    if path.startswith(MADE):
        if path.removeprefix(MADE) not in known_secrets():
            problem(where, f"scripts/compose-secrets.sh does not make {path}")
    elif not (ROOT / path).exists():
        problem(where, f"{path} does not exist")


def check_service(where, name, service):
    where = f"{where}: {name}"
    for key in ("image", "mem_limit", "restart", "healthcheck"):
        if key not in service:
            problem(where, f"{key} is missing")
    if not pinned(service.get("image", "")):
        problem(where, f"image {service.get('image')} is not pinned")
    build = service.get("build")
    if build is not None:
        build = {"context": build} if isinstance(build, str) else build
        check_path(where, str(pathlib.Path(build["context"]) / build.get("dockerfile", "Dockerfile")))
    for volume in service.get("volumes", []):
        source = volume.split(":")[0]
        if source.startswith("./"):
            check_path(where, source)
        elif source == "/" and ":ro" not in volume:
            # node_exporter looks at the machine's disks.
            problem(where, f"{volume} can be written to")
    if "env_file" in service:
        check_path(where, service["env_file"])
    for port in service.get("ports", []):
        if not re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port):
            problem(where, f"port {port} is open beyond the loopback address")
    for name, value in (service.get("environment") or {}).items():
        if re.search("PASS|SECRET|TOKEN", name) and not str(value).startswith("/run/secrets/"):
            problem(where, f"{name} holds a secret, not a file")


def check_compose(file):
    compose = yaml.safe_load((ROOT / file).read_text())
    for name, service in compose["services"].items():
        check_service(file, name, service)
        if file.endswith(".db.yml") and "build" in service:
            problem(f"{file}: {name}", "is built, where only registries' images may be")
    for name, secret in compose.get("secrets", {}).items():
        check_path(f"{file}: secret {name}", secret["file"])
    used = {secret for service in compose["services"].values() for secret in service.get("secrets", [])}
    for name in compose.get("secrets", {}).keys() - used:
        problem(file, f"secret {name} is declared and not used")
    if any("node_filesystem" in rules.read_text() for rules in (ROOT / "config/prometheus/rules").glob("*.yml")):
        asked = "prometheus" in compose["services"]
        if asked and "node_exporter:" not in (ROOT / "config/compose/prometheus.yml").read_text():
            problem(file, "rules ask node_exporter, which Prometheus does not scrape")
    for name, service in compose["services"].items():
        if name == "postgres_exporter" and not service.get("ports"):
            problem(f"{file}: {name}", "its port is not published")
    mounted = {v.split(":")[0] for s in compose["services"].values() for v in s.get("volumes", [])}
    for name in (compose.get("volumes") or {}).keys() - mounted:
        problem(file, f"volume {name} is declared and not used")


def instructions(file):
    text = re.sub(r"\\\n\s*", " ", re.sub(r"^\s*#.*\n", "", (ROOT / file).read_text(), flags=re.M))
    return [line.split(None, 1) for line in text.splitlines() if line.strip()]


def check_dockerfile(file):
    last_user, names = None, []
    for name, rest in instructions(file):
        names.append(name.upper())
        if names[-1] == "FROM":
            last_user = None
        elif names[-1] == "USER":
            last_user = rest
        elif names[-1] == "COPY" and "--from=" not in rest:
            for source in [word for word in rest.split() if not word.startswith("--")][:-1]:
                check_path(file, source)
    # hadolint lets a Dockerfile pass that sets no user, or no health check.
    if last_user is None:
        problem(file, "sets no USER")
    if "HEALTHCHECK" not in names:
        problem(file, "has no HEALTHCHECK")


def check_kubernetes(file):
    for document in yaml.safe_load_all(file.read_text()):
        where = f"{file.name}: {document['kind']}"
        if not {"apiVersion", "kind", "metadata"} <= document.keys():
            problem(where, "apiVersion, kind or metadata is missing")
        pod = document.get("spec", {}).get("template", {}).get("spec")
        if pod is None:
            continue
        volumes = {volume["name"] for volume in pod.get("volumes", [])}
        if not pod["securityContext"].get("runAsNonRoot"):
            problem(where, "may run as root")
        for container in pod["containers"]:
            closed = container.get("securityContext", {})
            if closed.get("allowPrivilegeEscalation") is not False or not closed.get("readOnlyRootFilesystem"):
                problem(where, f"{container['name']} is not closed")
            if not pinned(container["image"]):
                problem(where, f"image {container['image']} is not pinned")
            if "memory" not in container.get("resources", {}).get("limits", {}):
                problem(where, f"{container['name']} has no memory limit")
            for mount in container.get("volumeMounts", []):
                if mount["name"] not in volumes:
                    problem(where, f"volume {mount['name']} is not there")


# Read before any setting: src/cli.rs; set in a server's own configuration: config/nats.
OTHER_VARIABLES = {"JETCOPY_CONFIG", "JETCOPY_NATS_PASSWORD", "JETCOPY_NATS_PUBLISHER_PASSWORD"}


def check_pushed_tags():
    """Runs the step of db-deploy that pushes, with a docker that only says what it is told."""
    workflow = yaml.safe_load((ROOT / ".github/workflows/db-deploy.yml").read_text())
    step = next(step for step in workflow["jobs"]["image"]["steps"] if step.get("name") == "Push")
    if step["if"] != "github.event_name == 'push'":
        problem("db-deploy", "pushes otherwise than at a push")
    for kind, name, tags in (("branch", "main", ["latest", "main-0a1b"]), ("tag", "v1.2.3", ["1.2.3"])):
        environment = {
            "IMAGE": "image", "TOKEN": "t", "GITHUB_ACTOR": "a", "GITHUB_REF_TYPE": kind, "GITHUB_REF_NAME": name,
            "GITHUB_SHA": "0a1b", "PATH": "/usr/bin:/bin",
        }
        script = 'docker() { [ "$1" != login ] || cat >/dev/null; echo "$@"; }\n' + step["run"]
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], env=environment, capture_output=True, text=True, check=True)
        pushed = re.findall(r"^push image:(\S+)$", done.stdout, re.M)
        if pushed != tags:
            problem("db-deploy", f"pushes {pushed} of {kind} {name}, and should push {tags}")


def check_variables(files, program):
    names = set()
    for file in files:
        names |= set(re.findall(r"\bJETCOPY_[A-Z_]+\b", file.read_text()))
    for name in sorted(names - OTHER_VARIABLES):
        said = subprocess.run(
            [program, "healthcheck"], env={name: "1"}, capture_output=True, text=True, check=False
        ).stderr
        if "__" not in name or "unknown key" in said:
            problem(name, "jetcopy knows no such setting")


def check_configurations(program):
    """The daemon's own files are valid."""
    for file in [ROOT / "config/compose/jetcopy.toml", *embedded()]:
        done = subprocess.run(
            [program, "healthcheck", "--config", file], env={}, capture_output=True, text=True, check=False
        )
        if done.returncode == 2:
            problem(file.name, done.stderr.strip())


def embedded():
    """The configuration in the Kubernetes manifests, as a file."""
    import tempfile

    for file in (ROOT / "deploy/kubernetes").glob("*.yaml"):
        for document in yaml.safe_load_all(file.read_text()):
            if document["kind"] == "ConfigMap":
                made = pathlib.Path(tempfile.mkdtemp()) / "kubernetes.toml"
                made.write_text(document["data"]["jetcopy.toml"])
                yield made


def main():
    for file in COMPOSE:
        check_compose(file)
    for file in DOCKERFILES:
        check_dockerfile(file)
    check_pushed_tags()
    kubernetes = sorted((ROOT / "deploy/kubernetes").glob("*.yaml"))
    for file in kubernetes:
        check_kubernetes(file)
    if len(sys.argv) > 1:
        files = [ROOT / file for file in COMPOSE + DOCKERFILES] + kubernetes + sorted((ROOT / "systemd").iterdir())
        check_variables(files, sys.argv[1])
        check_configurations(sys.argv[1])
    for line in problems:
        print(line, file=sys.stderr)
    print(f"deployment files: {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
