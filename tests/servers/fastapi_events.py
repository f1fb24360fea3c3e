"""A FastAPI API of events: /page, /offset and /cursor, by fastapi-pagination.

`python fastapi_events.py EVENTS.json PORT`. Runs in an environment of its own (foreign.py).
"""

import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import APIKeyHeader
from fastapi_pagination import LimitOffsetPage, Page, add_pagination
from fastapi_pagination.cursor import CursorPage
from fastapi_pagination.ext.sqlalchemy import paginate
from pydantic import BaseModel, ConfigDict
from sqlalchemy import JSON, StaticPool, create_engine, insert, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

KEY = "an-api-key"


class Base(DeclarativeBase):
    type_annotation_map = {dict[str, Any]: JSON}  # noqa: RUF012


class Row(Base):
    """An event as it is stored."""

    __tablename__ = "events"
    id: Mapped[int] = mapped_column(primary_key=True)
    created_at: Mapped[datetime]
    type: Mapped[str]
    user: Mapped[int]
    properties: Mapped[dict[str, Any]]


class Event(BaseModel):
    """An event as it is served."""

    model_config = ConfigDict(from_attributes=True)
    id: int
    created_at: datetime
    type: str
    user: int
    properties: dict[str, Any]


def check(key: Annotated[str, Depends(APIKeyHeader(name="X-Token"))]) -> None:
    """Refuses a wrong key."""
    if key != KEY:
        raise HTTPException(403)


def application(events: list[dict[str, Any]]) -> FastAPI:
    """The API of these events."""
    engine = create_engine("sqlite://", poolclass=StaticPool,
                           connect_args={"check_same_thread": False})  # fmt: skip
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        rows = [{**one, "created_at": datetime.fromisoformat(one["created_at"])} for one in events]
        session.execute(insert(Row), rows)
        session.commit()
    newest_first = select(Row).order_by(Row.created_at.desc(), Row.id.desc())
    app = FastAPI(dependencies=[Depends(check)])

    @app.get("/page")
    async def by_page() -> Page[Event]:
        with Session(engine) as session:
            return paginate(session, newest_first)

    @app.get("/offset")
    async def by_offset() -> LimitOffsetPage[Event]:
        with Session(engine) as session:
            return paginate(session, newest_first)

    @app.get("/cursor")
    async def by_cursor() -> CursorPage[Event]:
        with Session(engine) as session:
            return paginate(session, newest_first)

    add_pagination(app)
    return app


if __name__ == "__main__":
    uvicorn.run(
        application(json.loads(Path(sys.argv[1]).read_text())),
        host="127.0.0.1",
        port=int(sys.argv[2]),
        log_level="warning",
    )
