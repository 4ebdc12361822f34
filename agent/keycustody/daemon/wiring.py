"""From settings to what the domain works with: the pool of workers, and where PINs come from."""

from collections.abc import Callable

from keycustody.config import PinSource as PinSettings
from keycustody.config import Settings
from keycustody.token import profiles
from keycustody.token.pin import CredentialPin, FilePin, PinSource, PromptPin
from keycustody.token.pin_guard import PinGuard
from keycustody.token.pool import Observe, Pool, PoolSettings, unobserved

Prompt = Callable[[str], str]


def pool(
    settings: Settings, prompt: Prompt | None, workers: int, observe: Observe = unobserved
) -> Pool:
    return Pool(
        pool_settings(settings, workers),
        pin_source(settings.token.pin, "User PIN", prompt),
        PinGuard(settings.agent.state_dir),
        observe,
    )


def pool_settings(settings: Settings, workers: int) -> PoolSettings:
    token = settings.token
    return PoolSettings(
        module=str(token.module),
        profile=token.profile,
        label=token.label,
        serial=token.serial,
        environment=token.environment,
        workers=workers,
        attempt_seconds=token.attempt_seconds or profiles.load(token.profile).attempt_seconds,
        recycle_objects=token.recycle_objects,
        recycle_bytes=token.recycle_bytes,
    )


def pin_source(settings: PinSettings, what: str, prompt: Prompt | None) -> PinSource:
    if settings.file is not None:
        return FilePin(settings.file)
    if settings.credential is not None:
        return CredentialPin(settings.credential)
    return PromptPin(lambda: prompt(what) if prompt is not None else None)
