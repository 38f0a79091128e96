"""Read the token that requests must have, and compare it with theirs."""

import hmac

from onnx_release.core.errors import ParameterError
from serving.settings import TOKEN, Settings


def read_token(settings: Settings) -> str | None:
    """Return the token that requests must have; None if there is none.

    Raises ParameterError if there are two, and if the file cannot be read or holds no token.
    """
    if settings.token_file is None:
        return settings.token.get_secret_value() if settings.token else None
    if settings.token is not None:
        raise ParameterError("there is a SERVING_TOKEN and a token file: give one of them")
    try:
        token = settings.token_file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as cause:
        reason = cause.strerror if isinstance(cause, OSError) else "not UTF-8"
        raise ParameterError(
            f"the token file {settings.token_file} cannot be read ({reason}): see --token-file"
        ) from cause
    if not TOKEN.fullmatch(token):
        raise ParameterError(
            f"the token file {settings.token_file} must hold one token, of letters, digits and -._~+/, and no more: "
            "`openssl rand -hex 32` makes one"
        )
    return token


def has_token(authorization: str, token: str) -> bool:
    """Return whether this value of the header Authorization has the token; the time to say so tells nothing of it."""
    scheme, _, given = authorization.partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())
