"""What the index promises on every database: equal resends, conflicts, completion, all or nothing, and many writers at once."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import arrivals
import pytest
from arrivals import a_series, entry, placed

from pacs.index.database import Index
from pacs.model.errors import NotFound
from pacs.model.instance import Location, Origin
from pacs.model.job import Claim, JobState, NewJob, SettledSeries
from pacs.model.query import Level, Query, Single

WAITS = {"settle_s": 2.0, "quiet_s": 20.0, "study_settle_s": 4.0}


def new_job(job_key: str = "k1", *, series: tuple[str, ...] = ("1.1.1",), study: str = "1.1", rule: str = "r") -> NewJob:
    """Return a job to be made."""
    return NewJob(job_key, "lungs", "1", {"threshold": -320}, rule, "cpu", study, series, "association released")


class IndexContract:
    """The promises; a subclass names the database."""

    kind: str

    @pytest.fixture
    def clock(self) -> arrivals.Clock:
        return arrivals.Clock()

    @pytest.fixture
    def opened(self, tmp_path: Path, clock: arrivals.Clock) -> Iterator[tuple[Index, str]]:
        with arrivals.opened(self.kind, tmp_path, clock) as opened:
            yield opened

    @pytest.fixture
    def index(self, opened: tuple[Index, str]) -> Index:
        return opened[0]

    # --- instances ---

    def test_a_group_becomes_rows_of_every_level(self, index: Index) -> None:
        """Several studies and series in one group; what comes back says where each instance lies."""
        group = [
            placed(1),
            placed(2),
            placed(1, series="1.1.2", Modality="PT"),
            placed(1, study="1.2", series="1.2.1", PatientID="P2"),
        ]

        stored = index.add(group)

        assert [one.location for one in stored] == [location for _, location in group]
        assert all(one.fresh and one.version == 1 for one in stored)
        located = index.locate(study_instance_uids=["1.1"])
        assert [one.key.sop_instance_uid for one in located] == ["1.1.1.1", "1.1.1.2", "1.1.2.1"]
        assert located[2].attributes["Modality"] == "PT"
        assert located[2].attributes["PatientID"] == "P1"
        assert located[0].study_key_id == 7
        counts = index.summary()
        assert [counts[name] for name in ("patients", "studies", "series", "instances", "size_bytes")] == [2, 2, 3, 4, 3600]

    def test_an_equal_instance_is_not_written_twice(self, index: Index) -> None:
        """The answer is the one that is there, in the same group and in a later one."""
        first, second = placed(1), placed(1)

        answers = index.add([first, second]) + index.add([placed(1)])

        assert [one.fresh for one in answers] == [True, False, False]
        assert {one.location for one in answers} == {first[1]}
        known = index.equal("1.1.1.1", first[0].encoded.digest)
        assert known is not None and not known.fresh and known.key == first[0].encoded.key
        assert index.equal("1.1.1.1", b"other") is None
        assert index.equal("9.9", first[0].encoded.digest) is None

    def test_other_content_under_a_known_uid_is_kept_beside_it(self, index: Index) -> None:
        """The first stays what is found; the other is kept as a further version, and an event tells of it."""
        (first,) = index.add([placed(1)])
        (second,) = index.add([placed(1, content="changed")])
        (again,) = index.add([placed(1, content="changed")])

        assert (second.version, second.fresh) == (2, True)
        assert (again.version, again.fresh) == (2, False)
        assert [one.location for one in index.locate(sop_instance_uids=["1.1.1.1"])] == [first.location]
        assert index.count(Query(Level.IMAGE)) == 1
        (event,) = index.events()
        assert (event.kind, event.sop_instance_uid, event.detail) == ("instance_conflict", "1.1.1.1", {"version": 2})

    def test_the_first_value_wins_and_an_empty_one_is_filled_later(self, index: Index) -> None:
        """A derived object with fewer or other attributes blanks and changes nothing above the instance."""
        index.add([placed(1, attributes={"StudyDescription": "CT", "PatientSex": ""})])
        index.add(
            [placed(2, attributes={"StudyDescription": "", "PatientSex": "F", "PatientName": "", "AccessionNumber": "A7"})]
        )
        index.add([placed(3, attributes={"StudyDescription": "MR", "PatientName": "Roe^Jane", "StudyDate": "20250101"})])

        (study,) = index.search(Query(Level.STUDY, {"AccessionNumber": Single("A7"), "PatientSex": Single("F")}))

        assert study["StudyDescription"] == "CT"
        assert study["PatientName"] == "Doe^John"
        assert study["StudyDate"] == "20240229"

    def test_a_study_stays_with_its_patient(self, index: Index) -> None:
        """A study is known by its UID: an object under another Patient ID does not move it."""
        index.add([placed(1, PatientID="P1")])
        index.add([placed(2, PatientID="P2", PatientName="Roe^Jane")])

        (study,) = index.search(Query(Level.STUDY))

        assert (study["PatientID"], study["PatientName"]) == ("P1", "Doe^John")
        assert index.summary()["patients"] == 1

    def test_patients_without_an_id_are_not_one_patient(self, index: Index) -> None:
        """Two studies without a Patient ID stay apart; an ID that comes later names the patient of its study."""
        index.add([placed(1, PatientID="", PatientName="Doe^John")])
        index.add([placed(1, study="1.2", series="1.2.1", PatientID="", PatientName="Roe^Jane")])
        assert index.summary()["patients"] == 2

        index.add([placed(2, PatientID="P9", PatientName="Doe^John")])

        (study,) = index.search(Query(Level.STUDY, {"PatientID": Single("P9")}))
        assert study["StudyInstanceUID"] == "1.1"
        assert index.summary()["patients"] == 2

    def test_issuers_keep_patients_apart(self, index: Index) -> None:
        """The same Patient ID of two issuers is two patients (PS3.3 C.7.1.1)."""
        index.add([placed(1, IssuerOfPatientID="A")])
        index.add([placed(1, study="1.2", series="1.2.1", IssuerOfPatientID="B")])

        assert index.summary()["patients"] == 2

    def test_values_that_no_database_stores_do_not_stop_an_instance(self, index: Index) -> None:
        """NUL, a lone surrogate, a value longer than an index takes, and a number that is none."""
        long = "Ä" * 5000
        index.add(
            [
                placed(
                    1,
                    StudyDescription="a\0b",
                    PatientName="Doe\ud800^John",
                    AccessionNumber=long,
                    SeriesNumber="99999999999999999999",
                    InstanceNumber="x",
                )
            ]
        )

        (study,) = index.search(Query(Level.STUDY, {"AccessionNumber": Single(long)}))

        assert study["StudyDescription"] == "ab"

    def test_locate_finds_what_is_in_every_list(self, index: Index) -> None:
        """Lists restrict one another; no list at all finds nothing rather than all."""
        index.add([*a_series(3), placed(1, study="1.2", series="1.2.1", PatientID="P2")])

        assert index.locate() == []
        assert len(index.locate(patient_ids=["P1"])) == 3
        assert len(index.locate(patient_ids=["P1", "P2"])) == 4
        assert index.locate(patient_ids=["P2"], study_instance_uids=["1.1"]) == []
        found = index.locate(series_instance_uids=["1.1.1"], sop_instance_uids=["1.1.1.3", "1.1.1.2"])
        assert [one.key.sop_instance_uid for one in found] == ["1.1.1.2", "1.1.1.3"]

    # --- after a crash ---

    def test_a_record_without_rows_is_restored_once(self, index: Index) -> None:
        """Replay writes what is missing and changes nothing that is there."""
        there, lost = placed(1), placed(2)
        index.add([there])

        assert index.restore(entry(lost), lost[1]) is True
        assert index.restore(entry(lost), lost[1]) is False
        assert index.restore(entry(there), there[1]) is False
        assert len(index.locate(study_instance_uids=["1.1"])) == 2
        (study,) = index.search(Query(Level.STUDY))
        assert study["NumberOfStudyRelatedInstances"] == "2"

    def test_replay_begins_where_the_index_ends(self, index: Index) -> None:
        """The high water of a container is the end of the last record that has rows."""
        arrival, _ = placed(1)
        index.add([(arrival, Location("c.seg", 4096, 1000))])

        assert index.high_water("c.seg") == 5096
        assert index.high_water("other.seg") == 0

    # --- many writers ---

    def test_many_threads_make_one_study(self, index: Index) -> None:
        """Eight threads add to the same study and series: one row of each, and no instance is lost or counted twice."""
        groups = [[placed(thread * 100 + n) for n in range(5)] for thread in range(8)]

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(index.add, groups))

        (study,) = index.search(Query(Level.STUDY))
        assert study["NumberOfStudyRelatedInstances"] == "40"
        assert study["NumberOfStudyRelatedSeries"] == "1"
        assert len(index.locate(study_instance_uids=["1.1"])) == 40
        assert index.summary()["patients"] == 1

    def test_studies_of_one_patient_at_once_make_one_patient(self, index: Index) -> None:
        """Groups that cross two studies in opposite orders neither wait for each other for ever nor lose anything."""

        def group(n: int) -> list[arrivals.Placed]:
            pair = [
                placed(n, study="1.1", series="1.1.1", OtherPatientIDs=str(n)),
                placed(n, study="1.2", series="1.2.1", PatientSex="F"),
            ]
            return pair if n % 2 else pair[::-1]

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(index.add, [group(n) for n in range(16)]))

        (patient,) = index.search(Query(Level.PATIENT))
        assert patient["NumberOfPatientRelatedInstances"] == "32"
        assert patient["PatientSex"] == "F"

    def test_a_race_of_equal_instances_has_one_winner(self, index: Index) -> None:
        """The same object sent over eight associations at once is stored once."""
        group = [placed(1) for _ in range(8)]
        barrier = threading.Barrier(8)

        def send(one: arrivals.Placed) -> bool:
            barrier.wait()
            return index.add([one])[0].fresh

        with ThreadPoolExecutor(8) as pool:
            fresh = list(pool.map(send, group))

        assert fresh.count(True) == 1
        assert index.count(Query(Level.IMAGE)) == 1

    def test_two_processes_write_at_once(self, opened: tuple[Index, str]) -> None:
        """Two processes with eight threads between them add to the same study: nothing is lost, nothing fails."""
        index, url = opened
        program = (
            "import sys, arrivals\n"
            "from concurrent.futures import ThreadPoolExecutor\n"
            "from pacs.index.database import Index\n"
            "index, base = Index.open(sys.argv[1]), int(sys.argv[2])\n"
            "groups = [[arrivals.placed(base + 10 * k + n) for n in range(4)] for k in range(12)]\n"
            "with ThreadPoolExecutor(4) as pool: list(pool.map(index.add, groups))\n"
            "index.close()\n"
        )
        path = ":".join(str(Path(__file__).parents[depth]) for depth in (1, 2))
        writers = [
            subprocess.Popen([sys.executable, "-c", program, url, str(base)], env={"PYTHONPATH": path, "PATH": ""})
            for base in (1000, 2000)
        ]

        assert [writer.wait(60) for writer in writers] == [0, 0]
        (study,) = index.search(Query(Level.STUDY))
        assert study["NumberOfStudyRelatedInstances"] == "96"
        assert len(index.locate(study_instance_uids=["1.1"])) == 96

    # --- completion ---

    def test_a_released_association_completes_its_series(self, index: Index, clock: arrivals.Clock) -> None:
        """After the release and a short rest; not before either."""
        index.add(a_series(3, association="a1", BodyPartExamined="CHEST", ImageType="ORIGINAL\\PRIMARY\\AXIAL"))

        assert index.settled(clock.now + 10, **WAITS) == []
        index.end_association("a1")
        assert index.settled(clock.now + 1, **WAITS) == []

        (settled,) = index.settled(clock.now + 2, **WAITS)
        assert (settled.study_instance_uid, settled.series_instance_uid) == ("1.1", "1.1.1")
        assert settled.completion == "association released"
        assert settled.attributes["BodyPartExamined"] == "CHEST"
        assert settled.attributes["ImageType"] == "ORIGINAL\\PRIMARY\\AXIAL"
        assert settled.attributes["StudyDate"] == "20240229"
        assert settled.attributes["NumberOfSeriesRelatedInstances"] == "3"

    def test_every_association_must_have_ended(self, index: Index, clock: arrivals.Clock) -> None:
        """A series that comes over two associations waits for both."""
        index.add([placed(1, association="a1"), placed(2, association="a2")])

        index.end_association("a1")
        assert index.settled(clock.now + 10, **WAITS) == []

        index.end_association("a2", "study committed")
        (settled,) = index.settled(clock.now + 10, **WAITS)
        assert settled.completion == "study committed"

    def test_the_clock_is_the_last_resort(self, index: Index, clock: arrivals.Clock) -> None:
        """A sender that never releases, or that is unknown, completes by silence, and the reason says so."""
        index.add([placed(1, association="a1"), placed(1, series="1.1.2")])

        assert index.settled(clock.now + 19.9, **WAITS) == []
        settled = index.settled(clock.now + 20, **WAITS)
        assert [one.completion for one in settled] == ["quiet for 20 s"] * 2
        assert index.scheduled(settled[0], []) == []
        assert [one.series_instance_uid for one in index.settled(clock.now + 20, **WAITS)] == ["1.1.2"]

    def test_a_late_image_makes_a_series_due_again(self, index: Index, clock: arrivals.Clock) -> None:
        """Scheduled once per generation; a resend is no news, a further image is."""
        index.add([placed(1, association="a1")])
        index.end_association("a1")
        clock.now += 10
        first = [one for one in index.settled(clock.now, **WAITS) if one.series_instance_uid]
        index.scheduled(first[0], [])

        index.add([placed(1, association="a2")])
        index.end_association("a2")
        assert [one for one in index.settled(clock.now + 10, **WAITS) if one.series_instance_uid] == []

        index.add([placed(2, association="a3")])
        assert [one for one in index.settled(clock.now + 10, **WAITS) if one.series_instance_uid] == []
        index.end_association("a3")
        (again,) = [one for one in index.settled(clock.now + 10, **WAITS) if one.series_instance_uid]
        assert again.generation > first[0].generation

    def test_an_image_that_comes_while_scheduling_is_not_forgotten(self, index: Index, clock: arrivals.Clock) -> None:
        """What is marked is the generation that was looked at, not the one that is there by now."""
        index.add([placed(1)])
        (seen,) = index.settled(clock.now + 20, **WAITS)
        index.add([placed(2)])

        index.scheduled(seen, [])

        (again,) = index.settled(clock.now + 20, **WAITS)
        assert again.attributes["NumberOfSeriesRelatedInstances"] == "2"

    def test_a_study_rests_when_all_its_series_were_scheduled(self, index: Index, clock: arrivals.Clock) -> None:
        """It says which modalities it has, and is due again after a late series."""
        index.add([placed(1, association="a1"), placed(1, series="1.1.2", Modality="PT", association="a1")])
        index.end_association("a1")
        settled = index.settled(clock.now + 10, **WAITS)
        assert [one.series_instance_uid for one in settled] == ["1.1.1", "1.1.2"]
        assert index.pending() == 3

        for one in settled:
            index.scheduled(one, [])
        assert index.settled(clock.now + 3, **WAITS) == []
        (study,) = index.settled(clock.now + 4, **WAITS)
        assert (study.study_instance_uid, study.series_instance_uid) == ("1.1", "")
        assert study.attributes["ModalitiesInStudy"] == "CT\\PT"
        assert study.attributes["NumberOfStudyRelatedInstances"] == "2"
        index.scheduled(study, [])
        assert index.pending() == 0
        assert [event.kind for event in index.events()] == ["series_complete", "series_complete", "study_complete"]

        index.add([placed(1, series="1.1.3")])
        assert index.pending() == 2

    def test_what_is_made_here_is_never_due(self, index: Index, clock: arrivals.Clock) -> None:
        """Rules do not fire on their own results, nor does a result make its study due again."""
        index.add([placed(1)])
        for one in index.settled(clock.now + 30, **WAITS):
            index.scheduled(one, [])
        for one in index.settled(clock.now + 30, **WAITS):
            index.scheduled(one, [])

        index.add([placed(1, series="1.1.9", origin=Origin.PROCESSOR, association="job")])

        assert index.settled(clock.now + 1000, **WAITS) == []
        assert index.summary()["derived_series"] == 1

    def test_what_is_made_here_is_routed_once(self, index: Index, clock: arrivals.Clock) -> None:
        """It is complete at once, pending until the routes were asked, and again when a job adds to it."""
        index.add([placed(1, origin=Origin.PROCESSOR, association="job")])
        (made,) = index.settled_derived()
        assert (made.completion, made.attributes["NumberOfSeriesRelatedInstances"], index.pending()) == ("made here", "1", 1)

        assert len(index.scheduled(made, [new_job("k1")])) == 1

        assert (index.settled_derived(), index.pending()) == ([], 0)
        index.add([placed(2, origin=Origin.PROCESSOR, association="job")])
        assert [one.attributes["NumberOfSeriesRelatedInstances"] for one in index.settled_derived()] == ["2"]

    def test_only_one_scheduler_makes_the_jobs(self, index: Index, clock: arrivals.Clock) -> None:
        """Two that saw the same series at rest: the second changes nothing."""
        index.add([placed(1)])
        (settled,) = index.settled(clock.now + 30, **WAITS)

        assert len(index.scheduled(settled, [new_job("k1")])) == 1
        assert index.scheduled(settled, [new_job("k2")]) == []
        assert len(index.jobs.list()) == 1

    def test_the_same_job_key_makes_one_job(self, index: Index, clock: arrivals.Clock) -> None:
        """A job key is unique: the same work over the same input is not done twice."""
        index.add([placed(1)])
        (first,) = index.settled(clock.now + 30, **WAITS)
        index.scheduled(first, [new_job("k1")])
        index.add([placed(2)])
        (second,) = index.settled(clock.now + 30, **WAITS)

        assert index.scheduled(second, [new_job("k1"), new_job("k2", rule="other")]) != []
        assert sorted(job.job_key for job in index.jobs.list()) == ["k1", "k2"]

    def test_a_new_generation_supersedes_the_older_result(self, index: Index, clock: arrivals.Clock) -> None:
        """The older job of the same rule and processor over the same series says that its input has changed; others stay."""
        index.add([placed(1), placed(1, series="1.1.2")])
        first, other = index.settled(clock.now + 30, **WAITS)
        (old,) = index.scheduled(first, [new_job("k1")])
        (kept,) = index.scheduled(other, [new_job("k2", series=("1.1.2",))])
        index.jobs.claim(old, "w", 30)
        index.jobs.succeed(Claim(old, "w"), output=["1.1.9"])

        index.add([placed(2)])
        (again,) = [one for one in index.settled(clock.now + 30, **WAITS) if one.series_instance_uid]
        (new,) = index.scheduled(again, [new_job("k3")])

        assert index.jobs.get(old).state is JobState.SUPERSEDED
        assert index.jobs.get(new).state is JobState.QUEUED
        assert index.jobs.get(kept).state is JobState.QUEUED

    def test_equal_inputs_have_equal_digests(self, index: Index) -> None:
        """The digest of a series set depends on content only, not on the order it came or is named in."""
        index.add([placed(2), placed(1), placed(1, series="1.1.2")])
        before = index.inputs_digest(["1.1.1", "1.1.2"])

        assert index.inputs_digest(["1.1.2", "1.1.1"]) == before
        index.add([placed(3)])
        assert index.inputs_digest(["1.1.1", "1.1.2"]) != before

    # --- the end of a job ---

    def test_results_and_the_end_of_their_job_are_one_transaction(self, index: Index) -> None:
        """The job has succeeded, names its output, and the derived series says what made it."""
        index.add([placed(1)])
        (job_id,) = index.jobs.add([new_job()])
        index.jobs.claim(job_id, "w1", 30)

        index.add([placed(1, series="1.1.9", origin=Origin.PROCESSOR)], finishing=Claim(job_id, "w1"))

        job = index.jobs.get(job_id)
        assert (job.state, job.output_series_instance_uids, job.progress) == (JobState.SUCCEEDED, ("1.1.9",), 1.0)
        source, derived = index.series_of("1.1")
        assert not source.derived
        assert (derived.derived, derived.processor, derived.version, derived.job_id) == (True, "lungs", "1", job_id)
        assert derived.source_series_instance_uids == ("1.1.1",)
        assert index.jobs.lineage(["1.1.1", "1.1.9"])["1.1.9"].job_id == job_id

    def test_a_zombie_commits_nothing(self, index: Index, clock: arrivals.Clock) -> None:
        """A worker whose lease ran out and whose job another took over cannot make its results visible."""
        index.add([placed(1)])
        (job_id,) = index.jobs.add([new_job()])
        index.jobs.claim(job_id, "w1", 30)
        clock.now += 31
        assert index.jobs.claim(job_id, "w2", 30) is not None

        with pytest.raises(NotFound):
            index.add([placed(1, series="1.1.9", origin=Origin.PROCESSOR)], finishing=Claim(job_id, "w1"))

        assert index.count(Query(Level.SERIES)) == 1
        assert index.jobs.get(job_id).state is JobState.RUNNING
        index.add([placed(1, series="1.1.9", origin=Origin.PROCESSOR)], finishing=Claim(job_id, "w2"))
        assert index.count(Query(Level.SERIES)) == 2

    # --- for people ---

    def test_studies_are_listed_with_counts_and_found_by_text(self, index: Index) -> None:
        """Every word must be somewhere: in the patient's name or ID, or in the description."""
        index.add([placed(1, StudyDescription="CT Thorax"), placed(1, series="1.1.9", origin=Origin.PROCESSOR, Modality="SEG")])
        index.add([placed(1, study="1.2", series="1.2.1", PatientID="P2", PatientName="Müller^Eva", StudyDate="20250101")])

        newest, older = index.studies()
        assert (newest.study_instance_uid, newest.patient_id, newest.study_date) == ("1.2", "P2", "20250101")
        assert (older.modalities, older.series, older.instances, older.derived_series) == (("CT", "SEG"), 2, 2, 1)
        assert [one.study_instance_uid for one in index.studies(text="doe thorax")] == ["1.1"]
        assert [one.study_instance_uid for one in index.studies(text="MÜLL")] == ["1.2"]
        assert index.studies(text="doe müller") == []
        assert index.studies(text="100%") == []
        assert [one.study_instance_uid for one in index.studies(limit=1)] == ["1.2"]

    def test_series_are_listed_with_their_middle_image(self, index: Index, clock: arrivals.Clock) -> None:
        """And with the reason why they count as complete, as soon as they do."""
        index.add(a_series(5, SeriesDescription="AX", BodyPartExamined="CHEST"))
        assert index.series_of("1.1")[0].completion == ""
        for one in index.settled(clock.now + 30, **WAITS):
            index.scheduled(one, [])

        (series,) = index.series_of("1.1")

        assert (series.modality, series.number, series.description, series.instances) == ("CT", 1, "AX", 5)
        assert series.thumbnail_sop_instance_uid == "1.1.1.3"
        assert series.completion == "quiet for 20 s"
        with pytest.raises(NotFound):
            index.series_of("9.9")

    def test_the_change_feed_is_followed_by_its_ids(self, index: Index) -> None:
        """Events after the last one seen, oldest first, a page at a time."""
        index.add([placed(1)])
        for content in "abc":
            index.add([placed(1, content=content)])

        first = index.events(0, 2)
        rest = index.events(first[-1].event_id, 2)

        assert [event.detail["version"] for event in (*first, *rest)] == [2, 3, 4]
        assert index.events(rest[-1].event_id) == []

    def test_a_settled_study_that_is_unknown_schedules_nothing(self, index: Index) -> None:
        """A stale answer about something that is not there does no harm."""
        assert index.scheduled(SettledSeries("9.9", "9.9.9", 1, "x"), [new_job()]) == []
        assert index.jobs.list() == []

    def test_it_answers_a_ping(self, index: Index) -> None:
        """The health check asks the database itself."""
        index.ping()

    # --- sealed rows ---

    def test_sealed_rows_are_counted_and_replaced_in_one_way(self, index: Index) -> None:
        """Of all four kinds, in batches; a row that was changed or forgotten meanwhile is left as it is."""
        for number in range(5):
            index.worklist.put(f"item{number}", "old", b"worklist %d" % number, ["d"])
        index.performed.add("2.25.5", "CT1", "2.25.6", "old", b"performed")
        (job,) = index.jobs.add([new_job()])
        index.workitems.add(job, "digest", "old", b"workitem")
        asked = index.commitments.add("CT1", "2.25.7", b"asked", "old", 1)
        ended = index.commitments.add("CT1", "2.25.8", b"forgotten", "old", 1)
        index.commitments.end(ended, "reported", attempts=1)
        index.worklist.put("new", "new", b"worklist", ["d"])
        assert index.sealed.sealed_with() == {"old": 8, "new": 1}

        rows = [row for batch in index.sealed.under_others("new", batch=2) for row in batch]
        index.worklist.put("item1", "new", b"changed", ["d"])
        index.worklist.remove(["item2"])
        done = {row.row_id: index.sealed.replace(row, "new", row.sealed + b" anew") for row in rows}

        assert {row.row_id: row.bound_to for row in rows if row.row_id == asked} == {asked: "CT1"}
        assert done == {row.row_id: row.row_id not in ("item1", "item2") for row in rows} and len(done) == 8
        assert index.worklist.get("item0").sealed == b"worklist 0 anew" and index.worklist.get("item1").sealed == b"changed"
        assert index.sealed.sealed_with() == {"new": 8} and not list(index.sealed.under_others("new"))


class TestSqlite(IndexContract):
    """The index over SQLite."""

    kind = "sqlite"


class TestPostgres(IndexContract):
    """The index over PostgreSQL."""

    kind = "postgresql"
