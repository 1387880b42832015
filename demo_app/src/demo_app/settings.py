"""What an administrator can set, by environment variables named DEMO_APP_<SETTING>."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AnyHttpUrl, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "DEMO_APP_"


class Settings(BaseSettings):
    """The service's settings; an empty variable means the default."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True)

    service_name: Annotated[str, Field(min_length=1)] = "fastapi-demo"
    environment: Annotated[str, Field(min_length=1)] = "dev"
    log_dir: Path = Path("/var/log/demo-app")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="0 takes any free port, and app.log tells which.")] = 8000
    otlp_endpoint: Annotated[AnyHttpUrl | None, Field(description="For instance http://127.0.0.1:4318")] = None


def explain(error: ValidationError) -> str:
    """Say what is wrong in terms of the variables that an administrator has set, one line each."""
    return "\n".join(
        f"{PREFIX}{'.'.join(str(part) for part in problem['loc']).upper()}={problem['input']}: {problem['msg']}"
        for problem in error.errors()
    )
