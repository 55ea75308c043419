"""The programs of training jobs read the tar files. They are large, so `nox -s readers` runs these tests."""

import json
import subprocess
import sys
import textwrap

import pytest

from imgdl_pipeline.core.storage.store import Store
from imgdl_pipeline_tests.support.datasets import Gallery, folder_of
from imgdl_pipeline_tests.support.pictures import jpeg

IMAGES = 25

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def tars(tmp_path_factory):
    gallery = Gallery(
        Store(str(tmp_path_factory.mktemp("tars"))), picture=lambda number, _: jpeg(number, (32, 24))
    )
    gallery.put(*range(IMAGES), width=32, height=24)
    gallery.export(shard_images=10, caption="attributes.title")
    return folder_of(gallery.store)


def printed(script, *arguments):
    """What a script prints last, as JSON; it runs in a process of its own, which may fork."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_two_workers_of_a_pytorch_loader_read_every_image_once(tars):
    pytest.importorskip("torch", reason="nox -s readers installs it")
    seen = printed(
        """
        import glob, json, sys
        import webdataset
        from torch.utils.data import DataLoader

        images = webdataset.WebDataset(sorted(glob.glob(sys.argv[1] + "/*.tar")), shardshuffle=100, seed=7)
        images = images.shuffle(10).decode("pil").to_tuple("jpg", "json")
        images = images.map(lambda sample: (sample[0].width, sample[0].height, sample[1]["url"]))
        loader = DataLoader(images, batch_size=4, num_workers=2, multiprocessing_context="fork")
        print(json.dumps([[int(w), int(h), url] for batch in loader for w, h, url in zip(*batch)]))
        """,
        str(tars),
    )
    assert sorted(seen) == sorted([32, 24, f"https://example.org/{number}.jpg"] for number in range(IMAGES))


def test_nemo_curator_reads_every_picture(tars):
    pytest.importorskip("nemo_curator", reason="nox -s readers installs it")
    pytest.importorskip("nvidia.dali", reason="nox -s readers installs it")
    shapes = printed(
        """
        import json, sys
        import nvidia.dali as dali

        # The stage asks for a GPU by its number even where it decodes on the CPU; nothing else is changed.
        on_a_gpu = dali.pipeline_def
        dali.pipeline_def = lambda **options: on_a_gpu(**{**options, "device_id": None})

        from nemo_curator.stages.file_partitioning import FilePartitioningStage
        from nemo_curator.stages.image.io.image_reader import ImageReaderStage
        from nemo_curator.tasks import EmptyTask

        partition = FilePartitioningStage(
            file_paths=sys.argv[1], files_per_partition=1, file_extensions=[".tar"]
        )
        reader = ImageReaderStage(dali_batch_size=7, num_threads=2)
        batches = [batch for task in partition.process(EmptyTask) for batch in reader.process(task)]
        print(json.dumps([list(image.image_data.shape) for batch in batches for image in batch.data]))
        """,
        str(tars),
    )
    assert shapes == [[24, 32, 3]] * IMAGES
