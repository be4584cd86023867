"""The work behind bench/sync.sh: data, clocks, tools and the table. Python 3.11, nothing but its library.

The clock of a cold case runs from "the data lies there, no tool has seen it" to "the other folder is equal", so what a
tool needs to read, hash and store first is part of its time. The clock of a later case runs from "the edit is written"
to "the other folder is equal". Servers that a person would leave running (rsync's daemon, Syncthing, and sealtide after
the cold case) run before the clock starts. Dirty pages are written back before each clock, never on it.
"""

import argparse
import contextlib
import json
import os
import pathlib
import platform
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import xml.etree.ElementTree as xml

KIB, MIB = 1024, 1024 * 1024
EDITS = 10
EDIT_BYTES = 4 * KIB
STEP_SECONDS_MAX = 1800
"""A tool that needs longer than this for one step has failed."""


class Failed(Exception):
    """A tool did not do its job: told in the table, the others go on."""


# ---------------------------------------------------------------- data


class Data:
    """One kind of content: makes it, and edits it the same way for every tool of a round."""

    def __init__(self, key, title, edits_title=None):
        self.key, self.title, self.edits_title = key, title, edits_title

    def cases(self):
        return [f"{self.key}-cold"] + ([f"{self.key}-edits"] if self.edits_title else [])


class OneFile(Data):
    def __init__(self, size):
        super().__init__("file", f"one file of {show_bytes(size)}", f"after {EDITS} edits of 4 KiB in it")
        self.size = size

    def make(self, folder):
        chance = random.Random(1)
        with open(folder / "large.bin", "wb") as file:
            for _ in range(self.size // MIB):
                file.write(chance.randbytes(MIB))

    def edit(self, folder, round_number):
        """Overwrites ten places; gives what has to stand where."""
        chance = random.Random(1000 + round_number)
        edits = []
        with open(folder / "large.bin", "r+b") as file:
            for part in range(EDITS):
                # One in each tenth, so that edits never overlap.
                at = part * (self.size // EDITS) + chance.randrange(self.size // EDITS - EDIT_BYTES)
                piece = chance.randbytes(EDIT_BYTES)
                file.seek(at)
                file.write(piece)
                edits.append(("large.bin", at, piece))
        return edits


class ManyFiles(Data):
    def __init__(self, count):
        super().__init__("many", f"{count:,} files of 4 KiB", f"after {EDITS} of them changed")
        self.count = count

    def path(self, number):
        return f"{number // 100:03}/{number:05}.bin"

    def make(self, folder):
        chance = random.Random(2)
        for number in range(self.count):
            path = folder / self.path(number)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(chance.randbytes(4 * KIB))

    def edit(self, folder, round_number):
        chance = random.Random(2000 + round_number)
        edits = []
        for number in chance.sample(range(self.count), EDITS):
            piece = chance.randbytes(4 * KIB)
            (folder / self.path(number)).write_bytes(piece)
            edits.append((self.path(number), 0, piece))
        return edits


class Tree(Data):
    """Real files: sources of crates. Files that steer git are left out, git would obey them."""

    def __init__(self, source, bytes_max):
        super().__init__("tree", f"a tree of real files, up to {show_bytes(bytes_max)}")
        self.source, self.bytes_max, self.files, self.bytes = source, bytes_max, 0, 0

    def make(self, folder):
        for path in sorted(self.source.rglob("*")):
            relative = path.relative_to(self.source)
            if path.is_symlink() or not path.is_file() or any(part.startswith(".git") for part in relative.parts):
                continue
            size = path.stat().st_size
            if self.bytes + size > self.bytes_max:
                break
            target = folder / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            self.files, self.bytes = self.files + 1, self.bytes + size
        self.title = f"a tree of {self.files:,} real files, {show_bytes(self.bytes)}"


def find_tree():
    """Sources that cargo fetched; they are there wherever this project was built."""
    registry = pathlib.Path(os.environ.get("CARGO_HOME", pathlib.Path.home() / ".cargo")) / "registry/src"
    return registry if registry.is_dir() and any(registry.iterdir()) else None


# ---------------------------------------------------------------- tools


def run(*command, cwd=None, env=None):
    """Runs a command to its end; its output only when it fails."""
    try:
        done = subprocess.run(
            [str(word) for word in command], cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=STEP_SECONDS_MAX, check=False,
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"{pathlib.Path(command[0]).name}: not done after {STEP_SECONDS_MAX} s") from None
    if done.returncode != 0:
        said = done.stdout.decode(errors="replace").strip()[-800:]
        raise Failed(f"{' '.join(map(str, command))[:200]} ended with {done.returncode}: {said}")
    return done.stdout


def stop(process, seconds=20):
    """Ends a process that this program started."""
    if process is None or process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_until(what, condition, seconds=STEP_SECONDS_MAX, pause=0.02):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise Failed(f"{what}: not after {seconds} s")
        time.sleep(pause)


class Tool:
    """One way to make `there` equal to `here`. `prepare` and `close` are off the clock, `cold` and `again` on it."""

    name = ""

    def __init__(self, work, here, there):
        self.work, self.here, self.there = work, here, there
        self.phases = {}

    def prepare(self):
        self.there.mkdir()

    def cold(self):
        """Makes both folders equal. May give the time at which they were, when it looked itself."""
        raise NotImplementedError

    def again(self, arrived):
        """Brings an edit over; `arrived()` tells whether it stands there. Gives what `cold` gives."""
        raise NotImplementedError

    def close(self):
        pass


class Sealtide(Tool):
    """Two homes on loopback: `up` at one, `join` and `sync` at the other."""

    name = "sealtide"
    program = None
    node = None

    @classmethod
    def version(cls):
        return run(cls.program, "version").decode().strip()

    def call(self, home, *words):
        return run(self.program, "--home", self.work / home, "--timeout", "300s", *words)

    def prepare(self):
        # `join` makes the folder itself.
        self.errors = open(self.work / "up.log", "wb")

    def cold(self):
        started = time.monotonic()
        words = [self.program, "--home", self.work / "a", "--json", "up", self.here]
        words += ["--listen", "127.0.0.1:0", "--gateway", "127.0.0.1:0"]
        self.node = subprocess.Popen(
            [str(word) for word in words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.errors
        )
        ticket = self.ticket()
        ready = time.monotonic()
        self.call("b", "join", ticket, self.there, "--wait")
        self.phases = {"up_to_ticket": ready - started, "join": time.monotonic() - ready}
        return self.sync_until(lambda: sizes(self.here) == sizes(self.there))

    def sync_until(self, arrived):
        """Asks again while "in step" was said too early (counted: it is a broken promise); the end of the last call."""
        ended = started = time.monotonic()
        early = 0
        while not arrived():
            if ended - started > 300:
                raise Failed(f"said {early} times that it is in step, and it was not")
            early += 1
            self.call("b", "sync", "--wait")
            ended = time.monotonic()
        if early:
            self.phases["early"] = early
        return ended

    def ticket(self):
        for line in self.node.stdout:
            with contextlib.suppress(ValueError):
                answer = json.loads(line)
                if answer.get("ticket"):
                    # Events follow. Somebody has to read them, or the pipe fills and the node stands still.
                    threading.Thread(target=self.node.stdout.read, daemon=True).start()
                    return answer["ticket"]
        said = (self.work / "up.log").read_text(errors="replace").strip()[-800:]
        raise Failed(f"sealtide up printed no ticket: {said}")

    def again(self, arrived):
        self.call("b", "sync", "--wait")
        return self.sync_until(arrived)

    def close(self):
        if self.node is not None and self.node.poll() is None:
            with contextlib.suppress(Failed):
                self.call("a", "down")
                self.node.wait(20)
        stop(self.node)
        self.errors.close()


class Rsync(Tool):
    """A daemon on loopback, pulled from, with its delta algorithm on."""

    name = "rsync"
    daemon = None

    @staticmethod
    def version():
        return run("rsync", "--version").decode().splitlines()[0]

    def prepare(self):
        super().prepare()
        self.port = free_port()
        config = self.work / "rsyncd.conf"
        config.write_text(
            f"port = {self.port}\naddress = 127.0.0.1\nuse chroot = no\npid file = {self.work}/rsyncd.pid\n"
            f"lock file = {self.work}/rsyncd.lock\nlog file = {self.work}/rsyncd.log\n"
            f"uid = {os.getuid()}\ngid = {os.getgid()}\n[bench]\npath = {self.here}\nread only = yes\n"
        )
        self.daemon = subprocess.Popen(
            ["rsync", "--daemon", "--no-detach", f"--config={config}"], stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        wait_until("rsync's daemon", self.listens, seconds=10)

    def listens(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def cold(self):
        run("rsync", "-a", "--delete", "--no-whole-file", f"rsync://127.0.0.1:{self.port}/bench/", f"{self.there}/")

    def again(self, arrived):
        self.cold()

    def close(self):
        stop(self.daemon)


class Git(Tool):
    """add and commit here, clone and pull there, over file:// so that packs are made and read."""

    name = "git"
    config = {
        "user.name": "bench", "user.email": "bench@localhost", "gc.auto": "0", "maintenance.auto": "false",
        "core.autocrlf": "false", "init.defaultBranch": "main", "advice.detachedHead": "false",
        "commit.gpgSign": "false", "core.excludesFile": "/dev/null",
    }

    @staticmethod
    def version():
        return run("git", "--version").decode().strip()

    def git(self, *words, cwd):
        settings = [word for key, value in self.config.items() for word in ("-c", f"{key}={value}")]
        env = os.environ | {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
        run("git", *settings, *words, cwd=cwd, env=env)

    def commit(self):
        self.git("add", "--all", "--force", ".", cwd=self.here)
        self.git("commit", "-q", "-m", "bench", cwd=self.here)

    def cold(self):
        self.git("init", "-q", ".", cwd=self.here)
        self.commit()
        self.git("clone", "-q", f"file://{self.here}", str(self.there), cwd=self.work)

    def again(self, arrived):
        self.commit()
        self.git("pull", "-q", "--ff-only", cwd=self.there)


class Syncthing(Tool):
    """Two devices that know each other, on loopback, discovery and relays off. Scans are asked for, not waited for."""

    name = "syncthing"

    def __init__(self, work, here, there):
        super().__init__(work, here, there)
        self.sides = {}

    @staticmethod
    def version():
        return run("syncthing", "--version").decode().split(" (")[0].strip()

    def prepare(self):
        super().prepare()
        for name in ("a", "b"):
            home = self.work / f"syncthing-{name}"
            run("syncthing", "generate", f"--home={home}", "--no-default-folder", "--skip-port-probing")
            api, link = free_port(), free_port()
            root = xml.parse(home / "config.xml").getroot()
            key = root.findtext("gui/apikey")
            device = root.find("device").get("id")
            self.sides[name] = {"home": home, "api": api, "link": link, "key": key, "device": device}
        for name, other in (("a", "b"), ("b", "a")):
            self.start(self.sides[name], self.sides[other])
        for side in self.sides.values():
            wait_until("syncthing's API", lambda: self.answers(side), seconds=60)
        peer = self.sides["b"]["device"]
        connected = lambda: self.ask(self.sides["a"], "system/connections")["connections"].get(peer, {}).get("connected")
        wait_until("the connection of two syncthings", connected, seconds=120)

    def start(self, side, other):
        """Writes the settings that keep it on loopback, then starts it."""
        path = side["home"] / "config.xml"
        document = xml.parse(path)
        root = document.getroot()
        root.find("gui/address").text = f"127.0.0.1:{side['api']}"
        options = root.find("options")
        settings = {
            "listenAddress": f"tcp://127.0.0.1:{side['link']}", "globalAnnounceEnabled": "false",
            "localAnnounceEnabled": "false", "relaysEnabled": "false", "natEnabled": "false", "urAccepted": "-1",
            "autoUpgradeIntervalH": "0", "crashReportingEnabled": "false", "startBrowser": "false",
            "reconnectionIntervalS": "1",
        }
        for key, value in settings.items():
            for old in options.findall(key):
                options.remove(old)
            xml.SubElement(options, key).text = value
        device = xml.SubElement(root, "device", id=other["device"], name="other")
        xml.SubElement(device, "address").text = f"tcp://127.0.0.1:{other['link']}"
        document.write(path)
        with open(side["home"] / "log", "wb") as log:
            words = ["syncthing", "serve", f"--home={side['home']}", "--no-browser", "--no-restart", "--no-upgrade"]
            side["process"] = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def ask(self, side, path, body=None, method=None):
        request = urllib.request.Request(
            f"http://127.0.0.1:{side['api']}/rest/{path}", headers={"X-API-Key": side["key"]},
            data=None if body is None else json.dumps(body).encode(), method=method,
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            said = answer.read()
        return json.loads(said) if said else None

    def answers(self, side):
        try:
            return self.ask(side, "system/ping") is not None
        except (urllib.error.URLError, OSError):
            return False

    def cold(self):
        devices = [{"deviceID": side["device"]} for side in self.sides.values()]
        for name, folder in (("a", self.here), ("b", self.there)):
            body = {
                "id": "bench", "path": str(folder), "devices": devices, "fsWatcherEnabled": False, "rescanIntervalS": 0,
                "type": "sendonly" if name == "a" else "receiveonly",
            }
            self.ask(self.sides[name], "config/folders/bench", body, "PUT")
        files = sum(len(names) for folder, _, names in os.walk(self.here) if ".stfolder" not in folder)
        wait_until("syncthing", lambda: self.in_step(files))

    def in_step(self, files):
        try:
            status = self.ask(self.sides["b"], "db/status?folder=bench")
        except urllib.error.HTTPError:
            return False
        return status["globalFiles"] >= files and status["needTotalItems"] == 0 and status["state"] == "idle"

    def again(self, arrived):
        self.ask(self.sides["a"], "db/scan?folder=bench", method="POST")
        wait_until("syncthing", arrived)

    def close(self):
        for side in self.sides.values():
            stop(side.get("process"))


TOOLS = {tool.name: tool for tool in (Sealtide, Rsync, Git, Syncthing)}


def find_tools(wanted, sealtide):
    """The tools that are there; a word for each that is not."""
    Sealtide.program = shutil.which(sealtide) if sealtide else None
    found = []
    for name in wanted:
        if Sealtide.program if name == "sealtide" else shutil.which(name):
            found.append(TOOLS[name])
        else:
            say(f"{name}: skipped, not installed")
    return found


# ---------------------------------------------------------------- rounds


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def show_bytes(count):
    for unit, size in (("GiB", 1024 * MIB), ("MiB", MIB), ("KiB", KIB)):
        if count >= size:
            return f"{count / size:.0f} {unit}"
    return f"{count} bytes"


def stands(folder, edits):
    """Whether every edit can be read in this folder."""
    for path, at, piece in edits:
        try:
            with open(folder / path, "rb") as file:
                file.seek(at)
                if file.read(len(piece)) != piece:
                    return False
        except OSError:
            return False
    return True


def sizes(folder):
    """Every file with its size: a quick look whether all is there."""
    found = {}
    for place, _, names in os.walk(folder):
        for name in names:
            path = pathlib.Path(place) / name
            with contextlib.suppress(OSError):
                found[str(path.relative_to(folder))] = path.lstat().st_size
    return found


def compare(here, there):
    """The last word, off the clock; folders of the tools themselves do not count."""
    own = [f"--exclude={name}" for name in (".git", ".stfolder", ".sealtide")]
    run("diff", "-r", "-q", "--no-dereference", *own, here, there)


def measure(tool, case, samples, action):
    os.sync()
    started = time.monotonic()
    ended = action() or time.monotonic()
    seconds = ended - started
    compare(tool.here, tool.there)
    samples.append({"case": case, "tool": tool.name, "seconds": seconds, "phases": tool.phases})
    detail = ", ".join(f"{key} {value:.2f}".removesuffix(".00") for key, value in tool.phases.items())
    say(f"{case:11} {tool.name:10} {seconds:8.2f} s" + (f"  ({detail})" if detail else ""))


def one_run(kind, data, pristine, work, number, cases, samples):
    """One tool, one kind of data: cold, then edited. In its own folder, which is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix=f"{kind.name}-", dir=work) as folder:
        folder = pathlib.Path(folder)
        here, there = folder / "here", folder / "there"
        run("cp", "-r", pristine, here)
        copied = time.time()
        tool = kind(folder, here, there)
        try:
            tool.prepare()
            measure(tool, f"{data.key}-cold", samples, tool.cold)
            if f"{data.key}-edits" in cases:
                # rsync compares times by the second: an edit in the second of the copy would not be seen.
                time.sleep(max(0.0, copied + 2.1 - time.time()))
                edits = data.edit(here, number)
                tool.phases = {}
                measure(tool, f"{data.key}-edits", samples, lambda: tool.again(lambda: stands(there, edits)))
        finally:
            tool.close()


def summarise(samples, failures, cases, tools):
    """Per case and tool: min, median, max, and the median over the rounds of sealtide's time by this tool's."""
    rows = []
    for case in cases:
        by_round = {
            tool.name: {s["round"]: s["seconds"] for s in samples if s["case"] == case and s["tool"] == tool.name}
            for tool in tools
        }
        ours = by_round.get("sealtide", {})
        for tool in tools:
            times = by_round[tool.name]
            row = {"case": case, "tool": tool.name, "rounds": len(times)}
            row["failed"] = sum(1 for f in failures if f["tool"] == tool.name and case.startswith(f["data"])) or None
            if times:
                values = list(times.values())
                row |= {"min_s": min(values), "median_s": statistics.median(values), "max_s": max(values)}
                ratios = [ours[number] / seconds for number, seconds in times.items() if number in ours]
                row["sealtide_ratio"] = statistics.median(ratios) if ratios else None
                early = [s["phases"].get("early", 0) for s in samples if s["case"] == case and s["tool"] == tool.name]
                row["early_rounds"] = sum(1 for count in early if count) or None
            if times or row["failed"]:
                rows.append({key: value for key, value in row.items() if value is not None})
    return rows


def print_table(rows, titles):
    print(f"\n{'tool':12}{'min s':>10}{'median s':>10}{'max s':>10}{'sealtide/tool':>16}")
    case = None
    for row in rows:
        if row["case"] != case:
            case = row["case"]
            print(f"{case}: {titles[case]}")
        if "median_s" not in row:
            print(f"  {row['tool']:10}    failed in every round")
            continue
        ratio = row.get("sealtide_ratio")
        shown = "" if ratio is None or row["tool"] == "sealtide" else f"{ratio:.2f}"
        notes = f"   failed in {row['failed']} more" if row.get("failed") else ""
        notes += f"   said in step too early in {row['early_rounds']}" if row.get("early_rounds") else ""
        print(f"  {row['tool']:10}{row['min_s']:>10.2f}{row['median_s']:>10.2f}{row['max_s']:>10.2f}{shown:>16}{notes}")


def parse_arguments():
    parser = argparse.ArgumentParser(prog="bench/sync.sh", description="Times of sealtide beside rsync, git, Syncthing.")
    parser.add_argument("--scale", choices=("full", "small"), default="full", help="small: sizes divided by 16")
    parser.add_argument("--rounds", type=int, default=int(os.environ.get("ROUNDS", 3)), metavar="N")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write every sample and the table here too")
    parser.add_argument("--cases", default="", metavar="A,B", help="file-cold, file-edits, many-cold, … [all]")
    parser.add_argument("--tools", default=",".join(TOOLS), metavar="A,B", help=f"[{','.join(TOOLS)}]")
    parser.add_argument("--tree", type=pathlib.Path, default=find_tree(), metavar="DIR", help="[cargo's sources]")
    parser.add_argument("--work", type=pathlib.Path, metavar="DIR", help="where the data goes [the temporary folder]")
    parser.add_argument("--sealtide", metavar="PROGRAM", help="the binary to measure")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error("--rounds begins at 1")
    if unknown := set(arguments.tools.split(",")) - set(TOOLS):
        parser.error(f"unknown tools: {', '.join(sorted(unknown))}")
    return parser, arguments


def main():
    parser, arguments = parse_arguments()
    divisor = 16 if arguments.scale == "small" else 1
    kinds = [OneFile(1024 * MIB // divisor), ManyFiles(10_000 // divisor)]
    if arguments.tree:
        kinds.append(Tree(arguments.tree.resolve(), 300_000_000 // divisor))
    else:
        say("tree-cold: skipped, cargo has no sources here (give --tree DIR)")
    known = [case for data in kinds for case in data.cases()]
    cases = arguments.cases.split(",") if arguments.cases else known
    if unknown := set(cases) - set(known):
        parser.error(f"unknown cases: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    tools = find_tools(arguments.tools.split(","), arguments.sealtide)
    if not tools:
        parser.error("none of the tools is installed")
    versions = {tool.name: tool.version() for tool in tools}
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, {platform.machine()}"
    say(f"{machine}; {'; '.join(versions.values())}")
    samples, failures = [], []
    with tempfile.TemporaryDirectory(prefix="sealtide-bench-", dir=arguments.work) as work:
        work = pathlib.Path(work).resolve()
        for data in kinds:
            if not any(case in cases for case in data.cases()):
                continue
            pristine = work / f"pristine-{data.key}"
            pristine.mkdir()
            data.make(pristine)
            for number in range(arguments.rounds):
                # Another tool begins each round, so that a slow minute of the machine hits them in turn.
                for step in range(len(tools)):
                    kind = tools[(number + step) % len(tools)]
                    fresh = []
                    try:
                        one_run(kind, data, pristine, work, number, cases, fresh)
                    except (Failed, OSError) as error:
                        say(f"{data.key} {kind.name}: FAILED: {error}")
                        failures.append({"data": data.key, "tool": kind.name, "round": number, "error": str(error)})
                    samples += [sample | {"round": number} for sample in fresh]
            shutil.rmtree(pristine)
    titles = {f"{data.key}-cold": data.title for data in kinds}
    titles |= {f"{data.key}-edits": data.edits_title for data in kinds if data.edits_title}
    shown = [case for case in known if case in cases]
    rows = summarise(samples, failures, shown, tools)
    print_table(rows, titles)
    if arguments.json:
        report = {
            "schema": "sealtide/bench-sync/1", "scale": arguments.scale, "rounds": arguments.rounds, "machine": machine,
            "versions": versions, "cases": {case: titles[case] for case in shown}, "table": rows, "samples": samples,
            "failures": failures,
        }
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
