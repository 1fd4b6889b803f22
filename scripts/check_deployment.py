#!/usr/bin/env python3
"""Checks what can be checked of the container files without an engine.

Of docker-compose*.yml: they parse, keys are those of the compose schema, images are pinned, each service has a memory limit,
a restart policy and a health check, and whatever is mounted, depended on or named as a secret exists. Of the Dockerfiles: the
rules of hadolint that matter here. Of db-deploy: which tags it pushes. Of deploy/kubernetes: it parses, and containers are closed. Everywhere: each JETCOPY_
variable is one that the program knows.
"""

import pathlib
import re
import subprocess
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
COMPOSE = ["docker-compose.yml", "docker-compose.db.yml"]
DOCKERFILES = ["Dockerfile", "docker/timescaledb/Dockerfile"]

TOP_KEYS = {"name", "services", "volumes", "secrets", "networks", "configs"}
SERVICE_KEYS = {
    "build", "cap_drop", "command", "depends_on", "entrypoint", "env_file", "environment", "healthcheck", "image", "logging",
    "mem_limit", "ports", "read_only", "restart", "secrets", "security_opt", "shm_size", "stop_grace_period", "tmpfs",
    "user", "volumes",
}
HEALTH_KEYS = {"test", "interval", "timeout", "retries", "start_period"}
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


def check_service(where, name, service, compose):
    where = f"{where}: {name}"
    for key in service.keys() - SERVICE_KEYS:
        problem(where, f"unknown key {key}")
    for key in ("image", "mem_limit", "restart", "healthcheck"):
        if key not in service:
            problem(where, f"{key} is missing")
    if not pinned(service.get("image", "")):
        problem(where, f"image {service.get('image')} is not pinned")
    for key in service.get("healthcheck", {}).keys() - HEALTH_KEYS:
        problem(where, f"unknown key healthcheck.{key}")
    build = service.get("build")
    if build is not None:
        build = {"context": build} if isinstance(build, str) else build
        check_path(where, str(pathlib.Path(build["context"]) / build.get("dockerfile", "Dockerfile")))
    for volume in service.get("volumes", []):
        source = volume.split(":")[0]
        if source.startswith("./"):
            check_path(where, source)
        elif source == "/":
            # node_exporter looks at the machine's disks.
            if ":ro" not in volume:
                problem(where, f"{volume} can be written to")
        elif source not in compose.get("volumes", {}):
            problem(where, f"volume {source} is not declared")
    if "env_file" in service:
        check_path(where, service["env_file"])
    for secret in service.get("secrets", []):
        if secret not in compose.get("secrets", {}):
            problem(where, f"secret {secret} is not declared")
    for other, condition in service.get("depends_on", {}).items():
        if other not in compose["services"]:
            problem(where, f"depends on {other}, which is not there")
        elif condition.get("condition") == "service_healthy" and "healthcheck" not in compose["services"][other]:
            problem(where, f"waits for the health of {other}, which has no check")
    for port in service.get("ports", []):
        if not re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port):
            problem(where, f"port {port} is open beyond the loopback address")
    for name, value in (service.get("environment") or {}).items():
        if re.search("PASS|SECRET|TOKEN", name) and not str(value).startswith("/run/secrets/"):
            problem(where, f"{name} holds a secret, not a file")


def check_compose(file):
    compose = yaml.safe_load((ROOT / file).read_text())
    for key in compose.keys() - TOP_KEYS:
        if not key.startswith("x-"):
            problem(file, f"unknown key {key}")
    for name, service in compose["services"].items():
        check_service(file, name, service, compose)
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
    found = instructions(file)
    stages, last_user, names = set(), None, [name.upper() for name, _ in found]
    for name, rest in found:
        name = name.upper()
        if name == "FROM":
            image, *alias = re.split(r"\s+AS\s+", rest, flags=re.I)
            if image not in stages and not pinned(image):
                problem(file, f"DL3006/DL3007: {image} is not pinned")
            stages.update(alias)
            last_user = None
        elif name == "USER":
            last_user = rest
        elif name == "ADD":
            problem(file, "DL3020: COPY files, do not ADD them")
        elif name == "MAINTAINER":
            problem(file, "DL4000: MAINTAINER is deprecated")
        elif name in ("CMD", "ENTRYPOINT") and not rest.startswith("["):
            problem(file, f"DL3025: {name} in JSON notation")
        elif name == "WORKDIR" and not rest.startswith("/"):
            problem(file, "DL3000: WORKDIR is absolute")
        elif name == "RUN":
            if "sudo" in rest:
                problem(file, "DL3004: no sudo")
            if re.search(r"apt-get install(?!.*--no-install-recommends)", rest):
                problem(file, "DL3015: apt-get install --no-install-recommends")
            if re.search(r"apk add(?!.*--no-cache)", rest):
                problem(file, "DL3019: apk add --no-cache")
            if re.search(r"\bcd ", rest):
                problem(file, "DL3003: WORKDIR, not cd")
        elif name == "COPY" and "--from=" in rest:
            if re.search(r"--from=(\S+)", rest).group(1) not in stages:
                problem(file, "DL3022: COPY --from names an earlier stage")
        elif name == "COPY":
            for source in [word for word in rest.split() if not word.startswith("--")][:-1]:
                check_path(file, source)
    if last_user is None or last_user.split(":")[0] in ("root", "0"):
        problem(file, "DL3002: the last USER is not root")
    if names.count("HEALTHCHECK") != 1:
        problem(file, "there is one HEALTHCHECK")


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
