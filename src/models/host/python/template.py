"""Runs the template (a fork server): the process that every other process of one interpreter is forked from.

The template imports MLflow and the configured libraries once, and then only forks: a child has the imports at once, and
shares their memory. Signalbox holds the other end of this process's standard input, a socket: requests come as lines of
JSON, and reports go back, with the descriptors of a new child as ancillary data. When that end closes, because
Signalbox is done or because it was itself killed, the template kills every child and everything that children have
started, and ends.

The source of this program comes over the same socket first. The process has one thread, so that forking is safe.
"""

import array
import contextlib
import fcntl
import gc
import importlib
import importlib.util
import json
import os
import resource
import select
import signal
import socket
import sys
import time
import typing

SET_PARENT_DEATH_SIGNAL, SET_NAME, SET_CHILD_SUBREAPER = 1, 15, 36
ENDED_BADLY = 70
# Number of children that are forked ahead: one for the next model, and one for a model that is asked for before the
# first spare is replaced.
SPARE_CHILDREN = 2
# Seconds between the use of a spare and the fork of its replacement: the used child loads its model and answers for the
# first time, and needs the processor more.
HEAD_START_SECONDS = 0.05
# Bytes that wait in a child's socket before its writer does.
SEND_BUFFER_BYTES = 4 << 20


def prctl(option, value):
    """Sets a process option on Linux. On other systems children still end with this process, unless it is killed."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def kill_group(group):
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def top_level(module):
    return module.partition(".")[0]


class Child(typing.NamedTuple):
    """A child, with the descriptors that Signalbox gets of it."""

    pid: int
    connection: socket.socket
    output: int

    def close(self):
        self.connection.close()
        os.close(self.output)


class Template:
    def __init__(self, control):
        self.control = control
        self.received = b""
        self.pid = os.getpid()
        self.children = set()
        # Spares are children for the next models, forked before they are asked for, once the first model was asked for.
        self.spares, self.wants_spares, self.spare_due = [], False, 0.0
        self.is_warm = False
        self.to_preload = []
        self.refused = set()
        self.libraries, self.exclude, self.programs, self.data_limit = [], set(), {}, None
        # What the programs define that were run here, and not in each child.
        self.prepared = {}
        # The class of a child's end of its socket.
        self.channel = None
        # Directory of prewarm's files; it goes with this process, since a killed child leaves its files behind.
        self.prewarm, self.scratch = {}, None
        # What `mlflow_patches.py` defines, for children.
        self.mlflow_patches = {}
        self.installed, self.modules = {}, 0
        # A child that ends wakes `select` by a byte in a pipe.
        self.wake_reader, wake_writer = os.pipe()
        for descriptor in (self.wake_reader, wake_writer):
            os.set_blocking(descriptor, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
        self.wake_writer = wake_writer

    # Reports and requests.

    def report(self, kind, descriptors=(), **report):
        line = json.dumps({kind: report}).encode() + b"\n"
        ancillary = []
        if descriptors:
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        try:
            sent = self.control.sendmsg([line], ancillary)
            self.control.sendall(line[sent:])
        except OSError:
            self.end()

    def notice(self, message, warning=True):
        self.report("noticed", warning=warning, message=message)

    def requests(self, limit):
        """Yields the requests that come within `limit` seconds, and reaps children that have ended meanwhile."""
        ready, _, _ = select.select([self.control, self.wake_reader], [], [], limit)
        if self.wake_reader in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self.wake_reader, 4096)
            self.reap()
        if self.control not in ready:
            return
        try:
            received = self.control.recv(65536)
        except ConnectionResetError:
            # Signalbox has ended without reading all reports.
            received = b""
        if not received:
            self.end()
        *lines, self.received = (self.received + received).split(b"\n")
        for line in lines:
            yield json.loads(line)

    def run(self):
        while True:
            for request in self.requests(0 if self.to_preload else self.seconds_until_spare()):
                for kind, details in request.items():
                    getattr(self, kind)(**details)
            # Requests come first; the time between them goes to one import, or to a spare.
            if self.to_preload:
                self.preload_one(self.to_preload.pop(0))
            elif self.seconds_until_spare() == 0:
                self.fork_spare()

    def seconds_until_spare(self):
        """Returns the seconds until a spare is to be forked; `None` when there are enough spares, or none wanted."""
        if not self.wants_spares or len(self.spares) == SPARE_CHILDREN:
            return None
        return max(0, self.spare_due - time.monotonic())

    # Handlers of requests.

    def begin(self, libraries, exclude, data_limit, programs):
        self.libraries, self.exclude, self.data_limit = libraries, set(exclude), data_limit
        self.programs = {kind: compile(text, f"<signalbox {kind}>", "exec") for kind, text in programs.items()}
        self.channel = self.execute("channel")["Channel"]
        self.report("begun")

    def warm(self):
        if self.is_warm:
            return
        begun = time.monotonic()
        with self.ending_at_once():
            try:
                self.import_all()
            except BaseException as error:
                import traceback

                traceback.print_exc()
                self.report("failed", reason=f"{type(error).__name__}: {error}")
                self.end(ENDED_BADLY)
        self.is_warm = True
        self.check_and_freeze(frozenset())
        self.execute("large_pages")["use_large_pages"]()
        self.report("warmed", seconds=time.monotonic() - begun)

    def fork(self, id, kind, arguments, environment, program):
        is_model = kind == "model"
        try:
            if program is not None and kind not in self.prepared:
                self.prepare(kind, program)
            # The oldest spare has had the most time to get ready.
            child = self.spares.pop(0) if is_model and self.spares else self.fork_child(kind, arguments, environment)
        except Exception as error:
            self.report("refused", id=id, reason=str(error))
            return
        self.report("forked", (child.connection.fileno(), child.output), id=id, pid=child.pid)
        child.close()
        if is_model:
            now = time.monotonic()
            # A later fork never moves the date of the next spare, so that the first spares that were used are replaced
            # however many forks follow.
            self.wants_spares, self.spare_due = (
                True,
                self.spare_due if self.spare_due > now else now + HEAD_START_SECONDS,
            )

    def prepare(self, kind, program):
        """Runs a child's program here, so that its children share what it imports and defines."""
        before = frozenset(sys.modules)
        self.programs[kind] = compile(program, f"<signalbox {kind}>", "exec")
        with self.ending_at_once():
            self.prepared[kind] = self.execute(kind)
        self.check_and_freeze(before)

    def preload(self, modules):
        self.to_preload += [module for module in modules if self.may_preload(module)]

    # Imports.

    def import_all(self):
        """Imports everything that a model's first load and first call need, so that no child has to import it."""
        if sys.path[:1] == [""]:
            # A file in Signalbox's working directory must not pass for a library.
            sys.path[0] = os.getcwd()
            sys.path.append(sys.path.pop(0))
        import mlflow.pyfunc.scoring_server  # noqa: F401

        for library in self.libraries:
            self.import_library(library)
        import tempfile

        self.scratch = tempfile.mkdtemp(prefix="signalbox-")
        self.mlflow_patches = self.execute("mlflow_patches")
        for what in self.mlflow_patches["left_out"]():
            self.notice(what)
        self.prewarm = self.execute("prewarm")
        self.prewarm["run"]()
        if "sklearn" in sys.modules:
            self.prewarm["run_sklearn"]()
        self.versions()

    def import_library(self, library):
        if top_level(library) in self.exclude or library in self.exclude:
            return
        try:
            module = importlib.import_module(library)
        except ImportError as error:
            self.notice(f"{library} (models.template.libraries) is not in the template: {error}")
            return
        # A library imports these names when they are first used; the last one is MLflow's flavor of the library.
        names = [f"{library}.{name}" for name in getattr(module, "__all__", ())]
        for name in [*names, f"mlflow.{library}"]:
            if self.may_preload(name):
                self.try_import(name)

    def may_preload(self, module):
        top = top_level(module)
        known = top in sys.modules or top in map(top_level, self.libraries)
        excluded = top in self.exclude or module in self.exclude
        return known and not excluded and module not in sys.modules and module not in self.refused and top != "__main__"

    def try_import(self, module):
        try:
            if importlib.util.find_spec(module) is not None:
                importlib.import_module(module)
        except Exception as error:
            self.notice(f"{module} is not in the template: {type(error).__name__}: {error}", warning=False)
        if module not in sys.modules:
            self.refused.add(module)

    def preload_one(self, module):
        if not self.may_preload(module):
            return
        before = frozenset(sys.modules)
        with self.ending_at_once():
            self.try_import(module)
        self.check_and_freeze(before)
        for spare in list(self.spares):
            # A spare lacks the modules that were imported after its fork.
            self.drop_spare(spare)

    def check_and_freeze(self, before):
        """Warns of modules that must not be inherited but are imported, and of threads, and shelters everything else
        from the garbage collector."""
        imported = {top_level(module) for module in sys.modules.keys() - before} & self.exclude
        if imported:
            names = ", ".join(sorted(imported))
            self.notice(f"{names} (models.template.exclude) was imported by something else, and is inherited by hosts")
        threading = sys.modules.get("threading")
        if threading and threading.active_count() > 1:
            names = ", ".join(thread.name for thread in threading.enumerate()[1:])
            self.notice(f"an import has started threads, which hosts will not have: {names}")
        gc.collect()
        # A collection in a child would touch, and so copy, the memory that it shares.
        gc.freeze()

    def versions(self):
        """Lists the installed distributions by canonical name, with which children compare a model's requirements."""
        self.installed = self.execute("requirements")["versions"]()

    # Children.

    def fork_child(self, kind, arguments=(), environment=(), ahead=False):
        """Forks a child, and returns it with our ends of its socket and of its output."""
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            # A large body goes in few pieces, each of which the other side is woken for. The system may allow less.
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        reading, writing = os.pipe()
        try:
            pid = os.fork()
            if pid == 0:
                # The child never returns to the callers of this frame.
                try:
                    # Descriptors of siblings would keep their sockets open after their end is closed here.
                    Child(0, ours, reading).close()
                    for spare in self.spares:
                        spare.close()
                    self.become_child(kind, theirs, writing, arguments, dict(environment), ahead)
                except BaseException:
                    import traceback

                    traceback.print_exc()
                finally:
                    os._exit(ENDED_BADLY)
        except OSError:
            Child(0, ours, reading).close()
            raise
        finally:
            theirs.close()
            os.close(writing)
        self.children.add(pid)
        return Child(pid, ours, reading)

    def fork_spare(self):
        """Forks a child ahead of a request."""
        try:
            self.spares.append(self.fork_child("model", ahead=True))
        except OSError:
            # A failed spare is no loss: the next request for a child reports the error.
            self.wants_spares = False

    def drop_spare(self, spare):
        # A spare ends by itself when its socket closes.
        spare.close()
        self.spares.remove(spare)

    def become_child(self, kind, connection, output, arguments, environment, ahead):
        """Turns the process that was just forked into a child of this kind, which never returns."""
        # A session of its own makes the child and its processes one group to kill.
        os.setsid()
        prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
        prctl(SET_NAME, f"signalbox-{kind}".encode())
        # The template may have ended before its death could be signalled.
        if os.getppid() != self.pid:
            os._exit(ENDED_BADLY)
        # The signals and descriptors of the template are not the child's.
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGIO, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        nothing = os.open(os.devnull, os.O_RDONLY)
        # Replacing standard input closes the control socket.
        os.dup2(nothing, 0)
        self.control.detach()
        os.dup2(output, 1)
        os.dup2(output, 2)
        for descriptor in (nothing, output, self.wake_reader, self.wake_writer):
            os.close(descriptor)
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            # A shortage of memory kills a model before the processes that all models depend on.
            file.write("500")
        if kind == "serve":
            become_mlflow(arguments, environment)
        if "numpy" in sys.modules:
            # Python's own generator reseeds itself after a fork; NumPy's does not.
            sys.modules["numpy"].random.seed()
        if kind == "model" and self.data_limit is not None:
            limit_data_memory(self.data_limit)
        # The number of modules is kept and not their names: looking at each name would copy the memory that holds it.
        self.modules = len(sys.modules)
        program = self.prepared.get(kind) or self.execute(kind)
        if ahead:
            # Running a load and a call copies the memory that both write to now, while nobody waits for it.
            self.prewarm["run_short"](program["load"])
        program["main"](self.channel(connection))
        os._exit(0)

    def execute(self, program):
        """Runs a program, and returns what it defines."""
        namespace = {"__name__": f"signalbox_{program}", "TEMPLATE": self}
        exec(self.programs[program], namespace)
        return namespace

    def reap(self):
        """Reaps every child that has ended, and kills the children that it has left behind."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in self.children:
                kill_group(pid)
                self.children.discard(pid)
                for spare in [spare for spare in self.spares if spare.pid == pid]:
                    self.drop_spare(spare)
                self.report("exited", pid=pid, status=status)
            self.kill_adopted()

    def kill_adopted(self, ours_too=False):
        """Kills the processes that ended children have left behind, in any process group. Processes in the template's
        own group were started by imports, and are spared unless `ours_too`."""
        with contextlib.suppress(OSError), open(f"/proc/self/task/{self.pid}/children") as file:
            for pid in map(int, file.read().split()):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    if pid not in self.children and (ours_too or os.getpgid(pid) != os.getpgrp()):
                        os.kill(pid, signal.SIGKILL)

    def end(self, status=0):
        """Kills every child, and ends once the last of them has ended."""
        give_up = time.monotonic() + 4
        while time.monotonic() < give_up:
            for pid in self.children:
                kill_group(pid)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.kill_adopted(ours_too=True)
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            self.children.discard(pid)
            if pid == 0:
                time.sleep(0.002)
        if self.scratch is not None:
            import shutil

            shutil.rmtree(self.scratch, ignore_errors=True)
        os._exit(status)

    @contextlib.contextmanager
    def ending_at_once(self):
        """Ends the template while it imports, as soon as Signalbox's end closes: a signal tells, since the template
        does not listen meanwhile."""

        def look(*_):
            poll = select.poll()
            poll.register(self.control, 0)
            if any(events & select.POLLHUP for _, events in poll.poll(0)):
                self.end()

        flags = fcntl.fcntl(self.control, fcntl.F_GETFL)
        signal.signal(signal.SIGIO, look)
        signal.siginterrupt(signal.SIGIO, False)
        fcntl.fcntl(self.control, fcntl.F_SETOWN, self.pid)
        fcntl.fcntl(self.control, fcntl.F_SETFL, flags | os.O_ASYNC)
        look()
        try:
            yield
        finally:
            fcntl.fcntl(self.control, fcntl.F_SETFL, flags)
            signal.signal(signal.SIGIO, signal.SIG_IGN)


def become_mlflow(arguments, environment):
    path = os.path.dirname(sys.executable) + os.pathsep + os.environ.get("PATH", os.defpath)
    # `mlflow models serve` looks uvicorn up in the PATH.
    environment = {**os.environ, **environment, "PATH": path}
    os.execve(sys.executable, [sys.executable, "-m", "mlflow", *arguments], environment)


def limit_data_memory(own):
    """Limits the data memory of this process to `own` bytes beyond what it inherits, so that memory is refused to this
    model alone."""
    with contextlib.suppress(OSError, ValueError), open("/proc/self/status") as file:
        inherited = next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmData:"))
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (inherited + own, hard))


def main():
    # Ctrl-C reaches Signalbox, which first answers the requests that it has taken.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A subreaper becomes the parent of orphaned processes, so that none is left behind.
    prctl(SET_CHILD_SUBREAPER, 1)
    prctl(SET_NAME, b"signalbox-templ")
    control = socket.socket(fileno=0)
    control.set_inheritable(False)
    template = Template(control)
    try:
        template.run()
    except BaseException:
        import traceback

        traceback.print_exc()
        # Children cannot go on without the template.
        template.end(ENDED_BADLY)


main()
