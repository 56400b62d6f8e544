"""The list of official files, as ``official.toml`` has it."""

from __future__ import annotations

from fdfa.data.official import official_files


def test_every_official_file_has_a_size_a_checksum_and_mirrors() -> None:
    for name in ("mnist", "fashion-mnist", "emnist", "cifar10", "cifar100", "svhn"):
        assert official_files(name)
        for file in official_files(name):
            algorithm, _, digits = file.packed.checksum.partition(":")
            assert len(digits) == {"sha256": 64, "md5": 32}[algorithm]
            assert int(digits, 16)
            assert file.packed.size > 1000
            assert len(set(file.mirrors)) >= 2
            assert all(
                url.startswith("http") and url.endswith(f"/{file.name}") for url in file.mirrors
            )
    assert official_files("digits") == ()
