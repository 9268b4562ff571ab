"""Compiles and links a TinyGen project for one board.

The board's manifest (``boards/<board>.json``) has a table ``tinygen`` with compiler prefix, flags,
port and memory map; this script turns it into SCons variables and knows no board by name.
"""

import importlib.util
import subprocess
import sys
from pathlib import Path

from platformio.public import list_serial_ports
from SCons.Script import AlwaysBuild, Default, DefaultEnvironment

env = DefaultEnvironment()
board = env.BoardConfig()
facts = board.get("tinygen")
root = Path(env.PioPlatform().get_dir())
port = root / "port"
folders = [port / name for name in facts["folders"]] + [root / "arduino"]
compiler = facts["compiler"]
program = "firmware" if facts["flashable"] or facts["hosted"] else "firmware-emulation-only"

sys.path.insert(0, str(root / "builder"))
import uf2  # noqa: E402


def cxx_library():
    """The compiler's C++ library, where it has one."""
    command = [compiler + "g++", *facts["flags"], "-print-file-name=libstdc++.a"]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return ["stdc++"] if Path(found).is_file() else []


env.Replace(
    AR=compiler + "gcc-ar",
    AS=compiler + "gcc",
    CC=compiler + "gcc",
    CXX=compiler + "g++",
    LINK=compiler + "gcc",  # g++ would insist on a C++ library, which not every compiler comes with
    OBJCOPY=compiler + "objcopy",
    RANLIB=compiler + "gcc-ranlib",
    SIZETOOL=compiler + "size",
    ARFLAGS=["rcD"],
    RANLIBFLAGS=["-D"],
    PROGNAME=program,
    PROGSUFFIX=".elf",
)

# Paths inside objects are relative to the project, so that every folder gives the same bytes.
env.Append(
    ASFLAGS=facts["flags"],
    CCFLAGS=[
        *facts["flags"],
        "-Os",
        "-ffunction-sections",
        "-fdata-sections",
        "-fno-common",
        f"-ffile-prefix-map={env.subst('$PROJECT_DIR')}=.",
    ],
    CFLAGS=["-std=gnu99"],
    CXXFLAGS=["-std=gnu++17", "-fno-exceptions", "-fno-rtti", "-fno-threadsafe-statics"],
    CPPDEFINES=[("TINYGEN_CLOCK_HZ", f"{facts['clock_hz']}UL"), *facts["defines"]],
    CPPPATH=[str(port), *(str(folder) for folder in folders)],
    LINKFLAGS=[*facts["flags"], "-Wl,--gc-sections"],
    LIBS=["m"],
)
if not facts["hosted"]:
    symbols = sorted(facts["symbols"].items())
    env.Append(
        LINKFLAGS=["-nostartfiles", *(f"-Wl,--defsym,{name}={at:#x}" for name, at in symbols)],
        LIBPATH=[str(port)],
        LIBS=[*cxx_library(), "c", "gcc"],
    )
    env.Replace(LDSCRIPT_PATH=str(port / facts["script"]))

for folder in folders:
    env.BuildSources(str(Path("$BUILD_DIR", "platform", folder.relative_to(root))), str(folder))
elf = env.BuildProgram()


def path_of(suffix):
    """A file that a build makes from the ELF."""
    return f"$BUILD_DIR/{program}.{suffix}"


def write_uf2(target, source, env):
    """SCons action: the ELF's loadable segments as UF2 blocks."""
    Path(str(target[0])).write_bytes(uf2.from_elf(Path(str(source[0])), facts["uf2_family"]))


actions = {}
if facts["esp_chip"]:
    if importlib.util.find_spec("esptool"):
        to_image = f"--chip {facts['esp_chip']} elf2image -o $TARGET $SOURCE"
        actions["bin"] = f'"$PYTHONEXE" -m esptool {to_image}'
elif not facts["hosted"]:
    actions["bin"] = "$OBJCOPY -O binary $SOURCE $TARGET"
    actions["hex"] = "$OBJCOPY -O ihex $SOURCE $TARGET"
if facts["uf2_family"]:
    actions["uf2"] = write_uf2
products = [
    elf,
    *(
        env.Command(path_of(suffix), elf, env.VerboseAction(action, "Writing $TARGET"))
        for suffix, action in actions.items()
    ),
]
AlwaysBuild(env.Alias("buildprog", products))
Default(products)


def upload(target, source, env):
    """SCons action: runs the upload command of the board's facts."""
    if not facts["upload"]:
        sys.stderr.write(f"Error: {program}.elf runs here or in an emulator, not on a board\n")
        return 1
    if any("{port" in word for word in facts["upload"]):
        before = list_serial_ports()
        env.AutodetectUploadPort()
        if facts["touch_1200"]:
            env.TouchSerialPort("$UPLOAD_PORT", 1200)
            env.Replace(UPLOAD_PORT=env.WaitForNewSerialPort(before))
    places = {suffix: env.subst(path_of(suffix)) for suffix in ("bin", "hex", "uf2")}
    places["port"] = env.subst("$UPLOAD_PORT")
    places["port_name"] = Path(places["port"]).name
    return env.Execute([[word.format(**places) for word in facts["upload"]]])


env.AddPlatformTarget("upload", products, [upload], "Upload", "Put the firmware onto the board")
