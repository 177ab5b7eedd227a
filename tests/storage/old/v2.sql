BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('v3.2.0.a');
CREATE TABLE dlsearch_attempt (
	id INTEGER NOT NULL, 
	study VARCHAR(512) NOT NULL, 
	kind VARCHAR(16) NOT NULL, 
	number INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	token VARCHAR(32) NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	reason VARCHAR(32), 
	error TEXT, 
	worker VARCHAR(128) NOT NULL, 
	host VARCHAR(255) NOT NULL, 
	pid INTEGER, 
	slot INTEGER NOT NULL, 
	device VARCHAR(128) NOT NULL, 
	started DOUBLE NOT NULL, 
	ended DOUBLE, 
	lease_until DOUBLE NOT NULL, 
	progress TEXT, 
	result TEXT, 
	PRIMARY KEY (id), 
	UNIQUE (study, kind, number, attempt)
);
INSERT INTO "dlsearch_attempt" VALUES(1,'s','trial',0,1,'a34699268e7d430085863c37e666a4ed','complete',NULL,NULL,'w1','host',1,0,'cpu:0',1.79528238738275670999e+09,1.795282387658557415e+09,1.795282387658557415e+09,NULL,'{"state": "complete", "reason": null, "error": null, "values": [0.5], "epochs": 5, "summary": {}}');
INSERT INTO "dlsearch_attempt" VALUES(2,'s','trial',1,1,'604acab56bd04c13a94c7ecf6ff44496','running',NULL,NULL,'w2','host',1,0,'cpu:0',1.79528238763082575793e+09,NULL,1.79528241763082575801e+09,NULL,NULL);
CREATE TABLE dlsearch_round (
	id INTEGER NOT NULL, 
	study VARCHAR(512) NOT NULL, 
	round INTEGER NOT NULL, 
	opened DOUBLE NOT NULL, 
	finished DOUBLE, 
	document TEXT NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (study, round)
);
CREATE TABLE dlsearch_study (
	name VARCHAR(512) NOT NULL, 
	uuid VARCHAR(32) NOT NULL, 
	created DOUBLE NOT NULL, 
	n_trials INTEGER NOT NULL, 
	seconds DOUBLE NOT NULL, 
	finished BOOLEAN NOT NULL, 
	document TEXT NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "dlsearch_study" VALUES('s','9354e1f529894b2a9ba30bda9c552760',1.79528238700332188606e+09,3,0.0,0,'{"schema": 1, "name": "s", "uuid": "9354e1f529894b2a9ba30bda9c552760", "experiment": "dlsearch/test/none", "objectives": ["val/accuracy"], "directions": ["maximize"], "seed": 0, "config": {"seed": 0, "allow_targets": [], "model": {"dropout": 0.1}, "optimizer": {"lr": 0.001}, "data": {"name": "none"}, "trainer": {"max_epochs": 5, "accelerator": "cpu"}, "worker": {"lease_s": 30.0, "threads": null}, "tracking": {"project": "test", "enabled": false}, "paths": {}, "sampler": {"_target_": "optuna.samplers.RandomSampler"}, "pruner": null, "study": {"name": "s", "objective": "val/accuracy", "direction": "maximize", "n_trials": 3, "timeout": null, "trial_timeout": null, "target": null, "enqueue": null, "default_first": false, "allow_drift": false, "max_attempts": 3, "finalize": true, "confirm": {"top": 3, "seeds": 5, "racing": true, "refit": false}, "workers": null, "storage": null}}, "options": {}, "space": [{"name": "optimizer.lr", "kind": "float", "low": 0.0001, "high": 0.1, "log": true, "step": null, "choices": null, "when": null, "default": null, "text": "tag(log, interval(0.0001, 0.1))", "is_group": false, "added": false}], "sampler": {"_target_": "optuna.samplers.RandomSampler"}, "pruner": null, "allow_targets": [], "overrides": [], "command": "dlsearch v2", "default": null, "enqueue": [], "data": {}, "model": {}, "provenance": {}, "sha": {"env": "e", "code": "c", "config": "83e7cbc18ae38b955e195183eda246b54f2fb6e86dc3d880b40256fb60e98bd4", "space": "fb88de31521d6b03c239b44fb58e626ce2ec717b2df8e41aadae1a74584dee4a", "sampler": "dee88d703faee57e11447009ad57a30581b49f6d48a97d22c9bfcf9b33a0cb83", "data": "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}, "fixed": {"seed": 0, "allow_targets": [], "model": {"dropout": 0.1}, "optimizer": {"lr": 0.001}, "data": {"name": "none"}, "trainer": {"max_epochs": 5, "accelerator": "cpu"}, "study": {"objective": "val/accuracy", "direction": "maximize", "default_first": false}}}');
CREATE TABLE dlsearch_test_evaluation (
	id INTEGER NOT NULL, 
	study VARCHAR(512) NOT NULL, 
	kind VARCHAR(16) NOT NULL, 
	number INTEGER, 
	seed BIGINT NOT NULL, 
	opened DOUBLE NOT NULL, 
	document TEXT, 
	PRIMARY KEY (id)
);
INSERT INTO "dlsearch_test_evaluation" VALUES(1,'s','confirm',0,7,1.79528238776827859871e+09,NULL);
CREATE TABLE dlsearch_version (
	version INTEGER NOT NULL, 
	PRIMARY KEY (version)
);
INSERT INTO "dlsearch_version" VALUES(2);
CREATE TABLE studies (
	study_id INTEGER NOT NULL, 
	study_name VARCHAR(512) NOT NULL, 
	PRIMARY KEY (study_id)
);
INSERT INTO "studies" VALUES(1,'s');
CREATE TABLE study_directions (
	study_direction_id INTEGER NOT NULL, 
	direction VARCHAR(8) NOT NULL, 
	study_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	PRIMARY KEY (study_direction_id), 
	UNIQUE (study_id, objective), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_directions" VALUES(1,'MAXIMIZE',1,0);
CREATE TABLE study_system_attributes (
	study_system_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_system_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
CREATE TABLE study_user_attributes (
	study_user_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_user_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
CREATE TABLE trial_heartbeats (
	trial_heartbeat_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	heartbeat DATETIME NOT NULL, 
	PRIMARY KEY (trial_heartbeat_id), 
	UNIQUE (trial_id), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_intermediate_values (
	trial_intermediate_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	step INTEGER NOT NULL, 
	intermediate_value FLOAT, 
	intermediate_value_type VARCHAR(7) NOT NULL, 
	PRIMARY KEY (trial_intermediate_value_id), 
	UNIQUE (trial_id, step), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_params (
	param_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	param_name VARCHAR(512), 
	param_value FLOAT, 
	distribution_json TEXT, 
	PRIMARY KEY (param_id), 
	UNIQUE (trial_id, param_name), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_params" VALUES(1,1,'optimizer.lr',3.96295477257515346009e-03,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0001, "high": 0.1, "log": true}}');
INSERT INTO "trial_params" VALUES(2,2,'optimizer.lr',2.55562634229009727742e-04,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0001, "high": 0.1, "log": true}}');
CREATE TABLE trial_system_attributes (
	trial_system_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_system_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_user_attributes (
	trial_user_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_user_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_values (
	trial_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	value FLOAT, 
	value_type VARCHAR(7) NOT NULL, 
	PRIMARY KEY (trial_value_id), 
	UNIQUE (trial_id, objective), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_values" VALUES(1,1,0,0.5,'FINITE');
CREATE TABLE trials (
	trial_id INTEGER NOT NULL, 
	number INTEGER, 
	study_id INTEGER, 
	state VARCHAR(8) NOT NULL, 
	datetime_start DATETIME, 
	datetime_complete DATETIME, 
	PRIMARY KEY (trial_id), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "trials" VALUES(1,0,1,'COMPLETE','2026-11-21 17:33:07.252080','2026-11-21 17:33:07.678876');
INSERT INTO "trials" VALUES(2,1,1,'RUNNING','2026-11-21 17:33:07.593544',NULL);
CREATE TABLE version_info (
	version_info_id INTEGER NOT NULL, 
	schema_version INTEGER, 
	library_version VARCHAR(256), 
	PRIMARY KEY (version_info_id), 
	CHECK (version_info_id=1)
);
INSERT INTO "version_info" VALUES(1,12,'5.0.0');
CREATE UNIQUE INDEX ix_studies_study_name ON studies (study_name);
CREATE INDEX ix_trials_study_id ON trials (study_id);
CREATE INDEX ix_dlsearch_attempt_state ON dlsearch_attempt (state);
CREATE INDEX ix_dlsearch_attempt_held ON dlsearch_attempt (study, state, kind);
CREATE INDEX ix_dlsearch_attempt_study ON dlsearch_attempt (study);
CREATE INDEX ix_dlsearch_test_evaluation_study ON dlsearch_test_evaluation (study);
CREATE INDEX ix_dlsearch_round_study ON dlsearch_round (study);
CREATE INDEX ix_dlsearch_trials_state ON trials (study_id, state);
COMMIT;
