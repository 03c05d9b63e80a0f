"""The seal on documents and tables that were changed on purpose."""

from dataclasses import replace

from sarzarr.ingestion.verification.verify import folder_of, gather_documents, verify
from sarzarr.store.accept import accept
from sarzarr.store.journal import writing
from sarzarr.store.store import AnyStore
from sarzarr.store.verify.findings import Findings, Verification
from sarzarr.store.verify.tree import read_tree


def accept_changes(store: AnyStore) -> Verification:
    """Seal the documents and tables that were changed by hand, and return what is then wrong with the store.

    ``mended`` names the files that were sealed. Pixels are never accepted: a shard that is not as its manifest says
    stays damage.

    Raises `CorruptStoreError` where a document is no JSON, or a column fails its own checksum.
    """
    place = folder_of(store)
    with writing(place.path):
        copies = read_tree(place, Findings("")).copies
        sealed = accept(place)
        if sealed:
            gather_documents(place, copies)
    return replace(verify(place), mended=sealed)
