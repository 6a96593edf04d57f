"""What the test cluster builds keeps its name while its content does, and loses it when that changes."""

import hashlib
import io
import json
import tarfile
from pathlib import Path

from cluster import store
from cluster.digest import digest
from cluster.go import PROGRAMS
from cluster.oci import Image, write_image
from cluster.paths import HERE


def archive(image: Image, name: str = "docker.io/local/x:1") -> bytes:
    target = io.BytesIO()
    write_image(image, name, target)
    return target.getvalue()


def unpack(content: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(content)) as opened:
        return {name: (opened.extractfile(name) or io.BytesIO()).read() for name in opened.getnames()}


def layer(image: Image) -> list[tarfile.TarInfo]:
    blobs = [content for path, content in unpack(archive(image)).items() if path.startswith("blobs/")]
    (content,) = [blob for blob in blobs if blob[257:262] == b"ustar"]
    with tarfile.open(fileobj=io.BytesIO(content)) as opened:
        return opened.getmembers()


def test_a_changed_file_changes_the_hash(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("a = 1\n")
    before = digest(tmp_path)
    (tmp_path / "code.py").write_text("a = 2\n")
    assert digest(tmp_path) != before


def test_a_renamed_file_changes_the_hash(tmp_path: Path) -> None:
    (tmp_path / "old.py").write_text("a = 1\n")
    before = digest(tmp_path)
    (tmp_path / "old.py").rename(tmp_path / "new.py")
    assert digest(tmp_path) != before


def test_compiled_files_do_not_change_the_hash(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("a = 1\n")
    before = digest(tmp_path)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "code.cpython-311.pyc").write_bytes(b"\0")
    assert digest(tmp_path) == before


def test_parts_do_not_run_into_each_other() -> None:
    assert digest("ab", "c") != digest("a", "bc")


def test_the_same_content_in_another_place_has_the_same_hash(tmp_path: Path) -> None:
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "code.py").write_text("a = 1\n")
    assert digest(tmp_path / "here") == digest(tmp_path / "there")


def test_every_program_has_a_module_that_pins_its_sources() -> None:
    for program in PROGRAMS:
        folder = HERE / "go" / program.module
        assert (folder / "go.mod").exists()
        assert (folder / "go.sum").exists() or "require" not in (folder / "go.mod").read_text()


def test_the_same_image_has_the_same_bytes() -> None:
    image = Image(entrypoint=("/x",), files={"etc/passwd": "root:x:0:0\n"}, links={"bin": "usr/bin"})
    assert archive(image) == archive(image)


def test_an_image_names_itself_and_describes_its_layer_truly() -> None:
    image = Image(entrypoint=("/x",), files={"app/x": "text"})
    read = unpack(archive(image, "docker.io/local/y:2"))
    (entry,) = json.loads(read["index.json"])["manifests"]
    assert entry["annotations"]["io.containerd.image.name"] == "docker.io/local/y:2"
    manifest = json.loads(read[f"blobs/{entry['digest'].replace(':', '/')}"])
    for described in (manifest["config"], *manifest["layers"]):
        blob = read[f"blobs/{described['digest'].replace(':', '/')}"]
        assert len(blob) == described["size"]
        assert hashlib.sha256(blob).hexdigest() == described["digest"].removeprefix("sha256:")


def test_an_image_holds_the_folders_of_its_files_before_the_files() -> None:
    members = layer(Image(entrypoint=("/x",), files={"app/deep/x": "text"}, folders={"tmp": 0o1777}))
    assert [member.name for member in members] == ["app", "app/deep", "tmp", "app/deep/x"]


def test_a_program_stays_executable_in_an_image(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("x")
    (tmp_path / "run").chmod(0o700)
    (member,) = layer(Image(entrypoint=("/run",), files={"run": tmp_path / "run"}))
    assert member.mode == 0o755


def table(*rows: str) -> str:
    return "\n".join(["REF TYPE DIGEST SIZE PLATFORMS LABELS", *rows])


def test_a_few_tags_of_an_image_are_all_kept() -> None:
    rows = [f"docker.io/local/a:{number} type sha256:{number} 1 linux -" for number in range(store.KEPT_TAGS)]
    assert store.surplus(table(*rows), wanted=()) == []


def test_of_many_tags_the_wanted_one_stays_with_its_second_name() -> None:
    rows = [f"docker.io/local/a:{number} type sha256:{number} 1 linux -" for number in range(store.KEPT_TAGS + 1)]
    rows += ["sha256:config0 type sha256:0 1 linux -", "sha256:config1 type sha256:1 1 linux -"]
    gone = store.surplus(table(*rows), wanted={"docker.io/local/a:0"})
    assert "docker.io/local/a:0" not in gone
    assert "sha256:config0" not in gone
    assert {"docker.io/local/a:1", "sha256:config1"} <= set(gone)


def test_images_of_others_are_never_removed() -> None:
    rows = [f"registry.example/a:{number} type sha256:{number} 1 linux -" for number in range(20)]
    assert store.surplus(table(*rows), wanted=()) == []
