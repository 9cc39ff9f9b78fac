"""The object store: S3 over a folder, in a process of its own, and the clients we reach it with.

What is stored lies in two places under ``DIR/objects``: bytes in ``blobs/``, and names, metadata
and uploads in ``index.db``. An object exists when its row is committed, and a row is committed only
after its bytes are on disk: a kill at any moment leaves the old object or the new one, never a
mixture. The wire dialect (error tree, XML documents, bucket rules, safe XML parsing) is nanio's.
Its storage is not used: it writes bytes and metadata in two steps, lists in the order of folders,
and cannot hold ``a`` beside ``a/b``.
"""
