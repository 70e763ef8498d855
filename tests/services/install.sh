# What the tests of services stand on, installed under $services and kept. Sourced by tests/run and tests/fire, which
# define `step` and `fail`.

# A stamp holds the pins that a directory was filled from; other pins fill it again.
is_current() { [ -f "$1" ] && [ "$(cat "$1")" = "$2" ]; }

install_kafka() {
    local home="$services/kafka" pins java version
    java="$(command -v java)" || fail "Apache Kafka cannot be run: there is no Java. Install Java 17, or run tests/run --fast."
    version="$("$java" -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p')"
    [ "${version:-0}" -ge 17 ] || fail "Apache Kafka needs Java 17 or newer; $java is version ${version:-unknown}."
    pins="$(cat tests/services/pom.xml)"
    if is_current "$home/stamp" "$pins"; then
        echo "Apache Kafka: $home/libs (installed already)"
        return
    fi
    command -v mvn >/dev/null || fail "Apache Kafka cannot be had: there is no Maven (mvn). Install it, or run tests/run --fast."
    step "installing Apache Kafka from Maven"
    rm -rf "$home" && mkdir -p "$home"
    mvn --batch-mode --quiet --file tests/services/pom.xml dependency:copy-dependencies \
        -DoutputDirectory="$home/libs" -DincludeScope=runtime >"$home/mvn.log" 2>&1 ||
        { tail -n 20 "$home/mvn.log" >&2; fail "Apache Kafka cannot be had: Maven failed, see $home/mvn.log"; }
    printf '%s' "$pins" >"$home/stamp"
}

install_mlflow() {
    install_environment mlflow tests/services/requirements.txt src/cli/quickstart/requirements.txt
}

# Tools for Python, which also build and test the wheel.
install_tools() {
    install_environment tools tests/services/tools.txt
}

# Fills $services/$1/venv from the requirements of $2; further files are those that it refers to.
install_environment() {
    local name="$1" requirements="$2" home="$services/$1" pins python
    shift
    pins="$(cat "$@")"
    if is_current "$home/stamp" "$pins" && "$home/venv/bin/python" -c '' 2>/dev/null; then
        echo "$name: $home/venv (installed already)"
        return
    fi
    python="${PYTHON:-python3}"
    "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
        fail "$requirements cannot be had: '$python' is missing, older than 3.11, or without venv. Name another with PYTHON=…"
    step "installing $requirements (mlflow takes a few minutes)"
    rm -rf "$home" && mkdir -p "$home"
    { "$python" -m venv "$home/venv" &&
        "$home/venv/bin/python" -m pip install --disable-pip-version-check --progress-bar off \
            --requirement "$requirements"; } >"$home/pip.log" 2>&1 ||
        { tail -n 20 "$home/pip.log" >&2; fail "$requirements cannot be had: pip failed, see $home/pip.log"; }
    printf '%s' "$pins" >"$home/stamp"
}

# Builds the wheel, on the objects of the tests, and installs it in an environment that has nothing else; what its extras
# bring is lent by the two environments above. Made anew each time.
install_package() {
    local home="$services/package" lender
    local site='import sysconfig; print(sysconfig.get_path("purelib"))'
    rm -rf "$home" && mkdir -p "$home"
    "$services/tools/venv/bin/maturin" build --profile dev --locked --out "$home/dist"
    "$services/tools/venv/bin/python" -m venv "$home/venv"
    "$home/venv/bin/python" -m pip install --disable-pip-version-check --quiet --no-index --no-deps "$home"/dist/*.whl
    for lender in mlflow tools; do "$services/$lender/venv/bin/python" -c "$site"; done \
        >"$("$home/venv/bin/python" -c "$site")/lent.pth"
}

install_opa() {
    local home="$services/opa" pins
    pins="$(cat tests/services/opa.txt)"
    if is_current "$home/stamp" "$pins" && [ -x "$home/bin/opa" ]; then
        echo "Open Policy Agent: $home/bin/opa (installed already)"
        return
    fi
    command -v go >/dev/null || fail "Open Policy Agent cannot be had: there is no Go. Install it, or run tests/run --fast."
    step "building Open Policy Agent from its Go module (a few minutes)"
    rm -rf "$home" && mkdir -p "$home"
    GOBIN="$home/bin" go install "$pins" >"$home/go.log" 2>&1 ||
        { tail -n 20 "$home/go.log" >&2; fail "Open Policy Agent cannot be had: Go failed, see $home/go.log"; }
    printf '%s' "$pins" >"$home/stamp"
}

# What the test of the status page stands on: Debian's Chromium, and the Node modules that drive it.
install_page() {
    local home="$services/page" pins
    pins="$(cat tests/page/package-lock.json)"
    if ! command -v chromium >/dev/null; then
        command -v apt-get >/dev/null && [ "$(id -u)" -eq 0 ] ||
            fail "Chromium cannot be had: it is not installed, and there is no apt, or no right to use it. Install it, or run tests/run --fast."
        step "installing Chromium from Debian"
        mkdir -p "$services"
        { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends chromium; } \
            >"$services/apt.log" 2>&1 ||
            { tail -n 20 "$services/apt.log" >&2; fail "Chromium cannot be had: apt failed, see $services/apt.log"; }
    fi
    if is_current "$home/stamp" "$pins" && [ -d "$home/node_modules" ]; then
        echo "Chromium: $(command -v chromium), driven from $home (installed already)"
        return
    fi
    node -e 'process.exit(process.versions.node.split(".")[0] < 20 ? 1 : 0)' 2>/dev/null && command -v npm >/dev/null ||
        fail "the status page cannot be tested: Node is missing or older than 20, or npm is missing. Install them, or run tests/run --fast."
    step "installing the Node modules that drive Chromium"
    rm -rf "$home" && mkdir -p "$home"
    cp tests/page/package.json tests/page/package-lock.json "$home"
    (cd "$home" && npm ci --no-audit --no-fund --ignore-scripts) >"$home/npm.log" 2>&1 ||
        { tail -n 20 "$home/npm.log" >&2; fail "the status page cannot be tested: npm failed, see $home/npm.log"; }
    printf '%s' "$pins" >"$home/stamp"
}

# Installs what is named. Two runs at once: one installs, the other waits and finds it installed. The lock is the
# kernel's, and goes with us.
install_services() {
    local each
    mkdir -p "$services"
    exec 9>"$services/lock"
    if command -v flock >/dev/null; then
        flock --nonblock 9 || { echo "another run is installing them; waiting" && flock 9; }
    fi
    for each in "$@"; do "install_$each"; done
    exec 9>&-
}
