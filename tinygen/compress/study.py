"""The search's memory: an Optuna study, on this machine or on a storage that several share.

Draws depend on the seed and on how many trials there are, never on the process; so a search that
was stopped and resumed goes the way that it would have gone.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinygen.errors import InputError, TinyGenError

RANDOM_TRIALS = 8
"""Trials before the sampler begins to learn from them; presets count."""

VIOLATIONS, RESULT, PRESET = "violations", "result", "preset"
"""Attributes of a trial: how far it is beyond each limit (above 0: beyond), its result as a
document, the number of its preset."""

_DATABASES = (".db", ".sqlite", ".sqlite3")


@dataclass(frozen=True, eq=False)
class Study:
    """An Optuna study; ``name`` stands for everything that results depend on."""

    study: Any
    name: str
    seed: int

    def results(self) -> list[dict[str, Any]]:
        """Results of all trials that came to one, in their order."""
        return [t.user_attrs[RESULT] for t in self._trials() if RESULT in t.user_attrs]

    def run(
        self, presets: Sequence[Mapping[str, Any]], attempt: Callable[[Any], dict[str, Any]]
    ) -> None:
        """One trial: ``attempt`` draws from it and gives its result, a document.

        The result has ``value`` (None: ended early) and ``violations``.  Whatever ends ``attempt``
        otherwise, an interrupt included, leaves a failed trial, which counts for nothing.
        """
        from optuna.trial import TrialState

        trials = self._trials()
        there = [t for t in trials if t.state != TrialState.FAIL]
        taken = {t.user_attrs.get(PRESET) for t in there}
        preset = next((i for i in range(len(presets)) if i not in taken), None)
        with _quiet():
            self.study.sampler = _sampler(self.seed + len(there))
            if preset is not None:
                self.study.enqueue_trial(presets[preset])
            trial = self.study.ask()
            if preset is not None:
                trial.set_user_attr(PRESET, preset)
            try:
                result = attempt(trial)
            except BaseException:
                self.study.tell(trial, state=TrialState.FAIL)
                raise
            trial.set_user_attr(RESULT, result)
            trial.set_user_attr(VIOLATIONS, list(result["violations"].values()))
            if result["value"] is None:
                self.study.tell(trial, state=TrialState.PRUNED)
            else:
                self.study.tell(trial, result["value"])

    def drop_running(self) -> None:
        """Mark as failed what a process that was killed left running."""
        from optuna.trial import TrialState

        storage = self.study._storage
        for trial in self._trials():
            if trial.state == TrialState.RUNNING:
                storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)

    def _trials(self) -> list[Any]:
        return list(self.study.get_trials(deepcopy=False))


def open_study(where: str | Path, name: str, seed: int, resume: bool) -> Study:
    """The study called ``name`` in a storage: an address that Optuna takes, a database file, or
    a journal file.  A file of our own (a Path) is nobody else's.

    Raises :class:`InputError` when the study is there and ``resume`` is not asked for, or the
    storage cannot be used; :class:`TinyGenError` without Optuna.
    """
    try:
        import optuna
    except ImportError as error:
        raise TinyGenError(f"searching: {error}", 'pip install "tinygen[train]"') from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    own = isinstance(where, Path)
    with _quiet():
        try:
            storage = _storage(where)
            there = name in optuna.study.get_all_study_names(storage)
            if there and own and not resume:
                raise InputError(
                    f"{where}: has a search with these settings",
                    f"go on with it by --resume, or remove {where}",
                )
            opened = optuna.create_study(storage=storage, study_name=name, load_if_exists=True)
        except InputError:
            raise
        except Exception as error:  # each kind of storage raises its own
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise InputError(
                f"{where}: cannot keep a study: {first[:200]}",
                "give an address of Optuna's, such as sqlite:///study.db, or a file",
            ) from error
    study = Study(opened, name, seed)
    if own:
        study.drop_running()
    return study


def _storage(where: str | Path) -> Any:
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    text = str(where)
    if "://" in text and not text.startswith("sqlite"):
        from optuna.storages import get_storage

        return get_storage(text)
    if "://" in text or Path(text).suffix in _DATABASES:
        address = text if "://" in text else f"sqlite:///{Path(text).resolve()}"
        return RDBStorage(address, engine_kwargs={"connect_args": {"timeout": 60}})
    return JournalStorage(JournalFileBackend(text))


def _sampler(seed: int) -> Any:
    """Bergstra et al., Algorithms for Hyper-Parameter Optimization, 2011, with constraints."""
    from optuna.samplers import TPESampler

    return TPESampler(
        n_startup_trials=RANDOM_TRIALS,
        multivariate=True,
        group=True,
        seed=seed % 2**32,
        constraints_func=_constraints,
    )


def _constraints(trial: Any) -> list[float]:
    return [float(value) for value in trial.user_attrs[VIOLATIONS]]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings that what we use of Optuna may change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
