"""Be ingestor, and note in a file how many texts its encoder is asked for, kills included: `counted_ingestor.py FILE`."""  # noqa: INP001 - a script

import os
import sys
from collections.abc import Sequence

from encoders import Encoder
from encoders.encoder import Vectors
from ingestor.main import main

encode = Encoder.encode
# Every line is in the file before its texts are embedded.
file = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def counted(self: Encoder, texts: Sequence[str]) -> Vectors:
    """Encode, after noting how many texts."""
    os.write(file, f"{len(texts)}\n".encode())
    return encode(self, texts)


if __name__ == "__main__":
    Encoder.encode = counted  # type: ignore[method-assign]
    main()
