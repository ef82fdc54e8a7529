"""The requests session that registries are spoken to with; what it must not do by itself is taken out of it."""

from __future__ import annotations

from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any

import requests
import requests.adapters
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from ociforge import __version__
from ociforge.errors import RegistryError

if TYPE_CHECKING:
    from ociforge.transports.options import RegistryOptions

__all__ = ["new_session"]

_SEND_BLOCK = 256 << 10  # urllib3's 16 KiB cost a quarter more processor time on uploads
_SEND_TIMEOUT = 60.0  # seconds for one block


class _NoNetrc(requests.auth.AuthBase):
    """Stands where requests would else put the Authorization of ~/.netrc."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> None:
        """None: even with `allow_redirects=False`, requests would prepare the next request, reading the whole body
        and netrc on the way.
        """


def new_session(options: RegistryOptions, trust_env: bool) -> requests.Session:
    """A session without cookies and netrc, with TLS by `options`; proxies from the environment if `trust_env`."""
    if options.ca_file is not None and not options.ca_file.is_file():
        raise RegistryError(f"the CA file `{options.ca_file}` does not exist")
    session = _Session()
    session.auth = _NoNetrc()
    session.trust_env = trust_env
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))  # Harbor takes a cookie for a browser
    session.verify = str(options.ca_file) if options.ca_file is not None else not options.insecure
    if isinstance(options.client_cert, tuple):
        session.cert = (str(options.client_cert[0]), str(options.client_cert[1]))
    elif options.client_cert is not None:
        session.cert = str(options.client_cert)
    session.headers.clear()
    session.headers.update({"User-Agent": f"ociforge/{__version__}", "Accept-Encoding": "identity", "Accept": "*/*"})
    adapter = _Adapter(options)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


class _Adapter(requests.adapters.HTTPAdapter):
    """Never repeats or redirects by itself: bodies must be rewound, tokens renewed, uploads not sent twice."""

    def __init__(self, options: RegistryOptions) -> None:
        super().__init__(
            pool_connections=8,
            pool_maxsize=options.workers + 2,
            max_retries=urllib3.Retry(0, redirect=0, read=False),
        )

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, blocksize=_SEND_BLOCK, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, blocksize=_SEND_BLOCK, **kwargs)
        manager.pool_classes_by_scheme = _POOLS
        return manager


class _PatientHTTP(HTTPConnection):
    """urllib3 sends a body under the time limit for connecting, but a registry may stop reading while it stores what
    it has: between two blocks it gets `_SEND_TIMEOUT`.
    """

    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(_SEND_TIMEOUT)


class _PatientHTTPS(HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(_SEND_TIMEOUT)
        self.is_verified = True  # or not wanted: then urllib3 would warn on stderr at each connection


class _HTTPPool(HTTPConnectionPool):
    ConnectionCls = _PatientHTTP


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _PatientHTTPS


_POOLS = {"http": _HTTPPool, "https": _HTTPSPool}
